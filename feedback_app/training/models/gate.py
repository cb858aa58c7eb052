"""What the gate says, its rules and its judge model."""

from typing import Any, ClassVar

from django.conf import settings
from django.db import models

from feedback_app.feedback.models import Project


class GateOutcome(models.TextChoices):
    """What the gate says of a version."""

    PASSED = "passed", "Passed"
    FAILED = "failed", "Failed"
    UNDECIDED = "undecided", "Not enough evidence"


class GateRules(models.Model):
    """The rules of a project's gate (gate/settings.py). Never changed: saving adds a version."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="gate_rules")
    number = models.PositiveIntegerField()
    rules: Any = models.JSONField()
    saved_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["project", "number"], name="gate_rules_number")
        ]

    def __str__(self) -> str:
        return f"gate rules {self.number}"


class Judge(models.Model):
    """A model behind an OpenAI-compatible URL that compares answers for a project's gate."""

    project = models.OneToOneField(
        Project, on_delete=models.CASCADE, related_name="judge", primary_key=True
    )
    url = models.CharField(max_length=500)
    model = models.CharField(max_length=200)
    # encrypted (accounts/sealing.py); empty for a server that asks for none
    api_key = models.TextField(blank=True)
    saved_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    updated_at = models.DateTimeField(auto_now=True)

    def __str__(self) -> str:
        return f"{self.model} at {self.url}"
