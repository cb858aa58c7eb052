"""Sweeps: several runs on one snapshot that differ in their settings."""

from typing import Any, ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Q

from feedback_app.feedback.models import Project
from feedback_app.training.models.snapshots import Snapshot


class Sweep(models.Model):
    """A search over run settings. Its trials are runs of its snapshot, which `Run.sweep` names."""

    class Method(models.TextChoices):
        GRID = "grid", "Grid"
        RANDOM = "random", "Random"

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="sweeps")
    number = models.PositiveIntegerField()
    snapshot = models.ForeignKey(Snapshot, on_delete=models.PROTECT, related_name="sweeps")
    method = models.CharField(max_length=6, choices=Method.choices)
    # setting: a list of values, or {"low": …, "high": …} (sweeps/space.py)
    space: Any = models.JSONField(default=dict)
    # of the random draws
    seed = models.PositiveIntegerField(default=0)
    early_stopping = models.BooleanField(default=True)
    # trials in progress at the same time (runs/waiting.py)
    at_once = models.PositiveSmallIntegerField(default=1, db_default=1)
    # worker hours of all trials together, after which waiting trials are cancelled
    max_hours = models.FloatField()
    # minutes, and cost where an hour has a price, as shown before it began
    forecast: Any = models.JSONField(default=dict)
    requested_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)
    cancelled_at = models.DateTimeField(null=True)
    # when the last trial ended
    ended_at = models.DateTimeField(null=True)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["project", "number"], name="sweep_number"),
            models.UniqueConstraint(
                fields=["project"], condition=Q(ended_at=None), name="one_open_sweep"
            ),
            models.CheckConstraint(condition=Q(max_hours__gt=0), name="sweep_hours"),
        ]

    def __str__(self) -> str:
        return f"Sweep {self.number}"
