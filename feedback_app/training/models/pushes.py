"""Pushes: copies of versions in repositories of a model hub, or in object storage."""

from typing import ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Q

from feedback_app.db.claims import Claimable
from feedback_app.training.models.adapters import Adapter


class VersionPush(Claimable):
    """The newest push of a version's files; earlier ones are in the audit trail."""

    class Status(models.TextChoices):
        QUEUED = "queued", "Waiting"
        RUNNING = "running", "Being sent"
        DONE = "done", "Done"
        FAILED = "failed", "Failed"

    adapter = models.OneToOneField(
        Adapter, on_delete=models.CASCADE, related_name="push", primary_key=True
    )
    # hf://owner/name or s3://bucket/prefix
    destination = models.CharField(max_length=300)
    status = models.CharField(max_length=7, choices=Status.choices, default=Status.QUEUED)
    dispatched_at = models.DateTimeField(null=True)
    error = models.TextField(blank=True)
    # the page or folder that has the files
    url = models.CharField(max_length=500, blank=True)
    requested_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)
    finished_at = models.DateTimeField(null=True)

    class Meta:
        indexes: ClassVar = [
            models.Index(
                fields=["status"],
                condition=Q(status__in=["queued", "running"]),
                name="push_dispatch",
            )
        ]

    def __str__(self) -> str:
        return f"{self.adapter_id} to {self.destination}: {self.status}"

    @property
    def active(self) -> bool:
        return self.status in (self.Status.QUEUED, self.Status.RUNNING)
