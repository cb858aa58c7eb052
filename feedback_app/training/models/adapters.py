"""Versions: the adapters that runs made."""

from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import models

from feedback_app.feedback.models import Project
from feedback_app.training.models.gate import GateOutcome
from feedback_app.training.models.runs import Run
from feedback_app.training.querysets import AdapterQuerySet


class Adapter(models.Model):
    """An immutable LoRA version `<project>@<n>`, with the number of its run."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="adapters")
    run = models.OneToOneField(Run, on_delete=models.PROTECT, related_name="adapter")
    name = models.CharField(max_length=80, unique=True)
    # relative to ARTIFACT_ROOT, so that hosts may mount it anywhere
    path = models.CharField(max_length=300)
    sha256 = models.CharField(max_length=64)
    # measures and answers of new, live and base, as reported by the evaluation
    report: Any = models.JSONField(default=dict)
    gate: Any = models.JSONField(default=dict)
    # the gate's verdict; gate_won: whether it is "passed"
    gate_outcome = models.CharField(max_length=9, choices=GateOutcome.choices, blank=True)
    gate_won = models.BooleanField(default=False)
    discarded_at = models.DateTimeField(null=True)
    # it learned from what was erased since: discarded for good
    locked_at = models.DateTimeField(null=True)
    # without files from then on: after an erasure, or long after it was discarded
    deleted_at = models.DateTimeField(null=True)
    created_at = models.DateTimeField(auto_now_add=True)

    objects = AdapterQuerySet.as_manager()

    def __str__(self) -> str:
        return self.name

    @property
    def directory(self) -> Path:
        """Return where the files are on this host, once they were fetched (registry/files.py)."""
        return Path(settings.ARTIFACT_ROOT) / self.path
