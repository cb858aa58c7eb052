"""Influence reports: what groups of votes did to a version."""

from typing import Any, ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Q

from feedback_app.db.claims import Claimable
from feedback_app.training.models.adapters import Adapter


class InfluenceReport(Claimable):
    """The influence of groups of votes on a version, by person, topic, source and week."""

    class Status(models.TextChoices):
        QUEUED = "queued", "Waiting"
        RUNNING = "running", "Measuring"
        DONE = "done", "Done"
        FAILED = "failed", "Failed"
        CANCELLED = "cancelled", "Cancelled"

    adapter = models.OneToOneField(
        Adapter, on_delete=models.CASCADE, related_name="influence_report", primary_key=True
    )
    status = models.CharField(max_length=9, choices=Status.choices, default=Status.QUEUED)
    cancel_requested = models.BooleanField(default=False)
    dispatched_at = models.DateTimeField(null=True)
    phase = models.CharField(max_length=40, blank=True)
    done = models.PositiveIntegerField(default=0)
    total = models.PositiveIntegerField(default=0)
    error = models.TextField(blank=True)
    # training/influence/groups.py: Result; people by the ids of their accounts
    result: Any = models.JSONField(null=True)
    requested_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        indexes: ClassVar = [
            models.Index(
                fields=["status"],
                condition=Q(status__in=["queued", "running"]),
                name="influence_dispatch",
            )
        ]

    def __str__(self) -> str:
        return f"influence on {self.adapter_id}: {self.status}"

    @property
    def active(self) -> bool:
        return self.status in (self.Status.QUEUED, self.Status.RUNNING)
