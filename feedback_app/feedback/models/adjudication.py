"""Final verdicts on completions."""

from typing import ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Q


class Adjudication(models.Model):
    """A request for a final verdict on a completion, and the verdict.

    Contested completions need no row. `open` marks a request that is not answered yet; a `verdict`
    decides the example.
    """

    completion = models.OneToOneField(
        "feedback.Completion",
        on_delete=models.CASCADE,
        related_name="adjudication",
        primary_key=True,
    )
    project = models.ForeignKey(
        "feedback.Project", on_delete=models.CASCADE, related_name="adjudications"
    )
    open = models.BooleanField(default=False)
    # why it was requested; empty: it was contested, not requested
    asked = models.CharField(max_length=200, blank=True)
    asked_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    asked_at = models.DateTimeField(null=True)
    # empty: no verdict yet
    verdict = models.CharField(max_length=4, choices=[("up", "Up"), ("down", "Down")], blank=True)
    why = models.CharField(max_length=500, blank=True)
    by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    resolved_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "feedback_resolution"
        indexes: ClassVar = [
            models.Index(fields=["project", "asked_at"], condition=Q(open=True), name="asked"),
            models.Index(fields=["project", "-resolved_at"], name="resolved"),
        ]

    def __str__(self) -> str:
        return f"{self.verdict or 'open'}: {self.completion_id}"
