"""Versions of a project's guidelines."""

from typing import ClassVar

from django.conf import settings
from django.db import models


class GuidedVote(models.Model):
    """Records which version of the guidelines a vote or event was given under."""

    # 0: there were none, or the vote was imported
    guidelines_number = models.PositiveIntegerField(default=0)

    class Meta:
        abstract = True


class GuidelinesVersion(models.Model):
    """A project's guidelines from `created_at` on. Never changed."""

    project = models.ForeignKey(
        "feedback.Project", on_delete=models.CASCADE, related_name="guidelines_versions"
    )
    number = models.PositiveIntegerField()
    # empty: they were removed
    text = models.TextField(blank=True)
    by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["project", "number"], name="guidelines_number")
        ]

    def __str__(self) -> str:
        return f"version {self.number}"
