"""When a project trains automatically."""

from typing import Any, ClassVar

from django.db import models
from django.db.models import Q

from feedback_app.feedback.models import Project


class Schedule(models.Model):
    """When to train automatically, and whether to release when the gate passes."""

    project = models.OneToOneField(
        Project, on_delete=models.CASCADE, related_name="schedule", primary_key=True
    )
    enabled = models.BooleanField(default=False)
    min_new_examples = models.PositiveIntegerField(default=50)
    min_hours = models.FloatField(default=24)
    # no run starts while the annotators agree on fewer percent of their shared answers
    min_agreement = models.PositiveSmallIntegerField(null=True)
    # no run starts between these times of day, in `time_zone`
    quiet_from = models.TimeField(null=True)
    quiet_until = models.TimeField(null=True)
    # IANA name; empty: SCHEDULE_TIME_ZONE
    time_zone = models.CharField(max_length=64, blank=True, default="", db_default="")
    auto_release = models.BooleanField(default=False)
    # settings of its runs (runs/config.py); null: those that Train begins with
    config: Any = models.JSONField(null=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        constraints: ClassVar = [
            models.CheckConstraint(condition=Q(min_new_examples__gte=1), name="schedule_examples"),
            models.CheckConstraint(condition=Q(min_hours__gte=0), name="schedule_hours"),
            models.CheckConstraint(
                condition=Q(min_agreement=None) | Q(min_agreement__gte=1, min_agreement__lte=100),
                name="schedule_agreement",
            ),
            models.CheckConstraint(
                condition=Q(quiet_from=None, quiet_until=None)
                | Q(quiet_from__isnull=False, quiet_until__isnull=False),
                name="schedule_quiet_hours",
            ),
        ]

    def __str__(self) -> str:
        return f"every {self.min_new_examples} examples"
