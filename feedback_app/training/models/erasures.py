"""Erasures, and the retraining that they start."""

from typing import Any, ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Q

from feedback_app.db.claims import Claimable
from feedback_app.feedback.models import Project
from feedback_app.training.querysets import ErasureQuerySet


class Erasure(Claimable):
    """The removal of a person's votes, or of an answer with its example, from a project, and which
    runs had used them.

    The row is created before anything is deleted and finished at the end, so that another worker
    can resume an interrupted erasure. It holds no name, only the id of the deleted account or
    answer. Versions that had used it are gone at `deleted_at`, soon after `due_at`.
    """

    CLAIMED: ClassVar[dict[str, Any]] = {}

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="erasures")
    # one of both: the account's id, or the id of the answer
    person = models.PositiveBigIntegerField(null=True)
    completion = models.PositiveBigIntegerField(null=True)
    # the account is deleted as well
    account = models.BooleanField()
    by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    votes = models.PositiveIntegerField(default=0)
    examples_gone = models.PositiveIntegerField(default=0)
    examples_changed = models.PositiveIntegerField(default=0)
    # numbers of the runs whose snapshots had used the votes
    runs: Any = models.JSONField(default=list)
    # by when no version that used it is left; empty: none had used it
    due_at = models.DateTimeField(null=True)
    # when the last of them was deleted
    deleted_at = models.DateTimeField(null=True)
    # why no run without it can be started
    problem = models.TextField(blank=True, default="", db_default="")
    created_at = models.DateTimeField(auto_now_add=True)
    finished_at = models.DateTimeField(null=True)

    objects = ErasureQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=Q(person=None, completion__isnull=False)
                | Q(person__isnull=False, completion=None),
                name="erasure_of_one",
            )
        ]
        indexes: ClassVar = [
            models.Index(fields=["project", "-created_at"], name="erasure_list"),
            models.Index(
                fields=["project"],
                condition=Q(due_at__isnull=False, deleted_at=None),
                name="erasure_pending",
            ),
            models.Index(
                fields=["person"], condition=Q(finished_at=None), name="erasure_unfinished"
            ),
        ]

    def __str__(self) -> str:
        return f"erasure of {self.subject}"

    @classmethod
    def waiting(cls) -> Q:
        return Q(finished_at=None, heartbeat_at=None)

    @classmethod
    def working(cls) -> Q:
        return Q(finished_at=None, heartbeat_at__isnull=False)

    @property
    def subject(self) -> str:
        """Return what was erased, by its number."""
        if self.person is None:
            return f"answer {self.completion}"
        return f"person {self.person}"

    @property
    def adapter_names(self) -> list[str]:
        """Return the versions that the votes helped to train."""
        return [self.project.adapter_name(number) for number in self.runs]
