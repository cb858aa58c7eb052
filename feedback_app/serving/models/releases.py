"""Releases: what is live, since when and by whom."""

from typing import Any, ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Q

from feedback_app.db.claims import Claimable
from feedback_app.feedback.models import BASE_VERSION, Project
from feedback_app.training.models import Adapter


class Release(models.Model):
    """Which version answers as `live`, from `since` until `until`. History is kept."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="releases")
    # empty: the base model
    adapter = models.ForeignKey(
        Adapter, null=True, on_delete=models.PROTECT, related_name="releases"
    )
    live = models.BooleanField(default=True)
    released_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    reason = models.CharField(max_length=200, blank=True)
    # released because the version before could not be served
    fallback = models.BooleanField(default=False)
    since = models.DateTimeField(auto_now_add=True)
    until = models.DateTimeField(null=True)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["project"], condition=Q(live=True), name="one_live_release_per_project"
            )
        ]
        indexes: ClassVar = [models.Index(fields=["project", "-since"], name="release_timeline")]

    def __str__(self) -> str:
        return self.version

    @property
    def version(self) -> str:
        """Return the adapter's name, or 'base'."""
        return self.adapter.name if self.adapter else BASE_VERSION


class LiveVersionClaim(Claimable):
    """The claim of the worker that changes a project's live version without a person.

    One row a project: automatic releases and traffic splits do not change it at the same time.
    """

    CLAIMED: ClassVar[dict[str, Any]] = {}

    project = models.OneToOneField(
        Project, on_delete=models.CASCADE, related_name="live_version_claim", primary_key=True
    )
    # taken every few seconds while a traffic split runs: a small integer would overflow
    attempt = models.PositiveIntegerField(default=0)

    def __str__(self) -> str:
        return f"live version of project {self.project_id}"

    @classmethod
    def waiting(cls) -> Q:
        return Q(heartbeat_at=None)

    @classmethod
    def working(cls) -> Q:
        return Q(heartbeat_at__isnull=False)
