"""Verdicts of whoever has the last word."""

from typing import ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Q


class Resolution(models.Model):
    """One completion before the resolver: why it was asked for, and what was decided.

    People who disagree need no row: their completion is contested. `open` says that somebody
    asked for a look, decided or not; a `verdict` makes the example.
    """

    completion = models.OneToOneField(
        "feedback.Completion", on_delete=models.CASCADE, related_name="resolution", primary_key=True
    )
    project = models.ForeignKey(
        "feedback.Project", on_delete=models.CASCADE, related_name="resolutions"
    )
    open = models.BooleanField(default=False)
    # why somebody asked; empty: nobody did, people disagreed
    asked = models.CharField(max_length=200, blank=True)
    asked_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    asked_at = models.DateTimeField(null=True)
    # empty: not decided
    verdict = models.CharField(max_length=4, choices=[("up", "Up"), ("down", "Down")], blank=True)
    why = models.CharField(max_length=500, blank=True)
    by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    resolved_at = models.DateTimeField(null=True)

    class Meta:
        indexes: ClassVar = [
            models.Index(fields=["project", "asked_at"], condition=Q(open=True), name="asked"),
            models.Index(fields=["project", "-resolved_at"], name="resolved"),
        ]

    def __str__(self) -> str:
        return f"{self.verdict or 'open'}: {self.completion_id}"
