"""Imports: how far each has come, and which rows were refused."""

from typing import Any, ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Q

from feedback_app.db.claims import Claimable


class ImportJob(Claimable):
    """One file coming into a project. The row is the truth: a worker that claims it continues at
    `offset`, which is committed together with what the rows before it have brought."""

    class Status(models.TextChoices):
        PREVIEW = "preview", "Not started"
        QUEUED = "queued", "Waiting"
        RUNNING = "running", "Importing"
        DONE = "done", "Done"
        FAILED = "failed", "Failed"
        CANCELLED = "cancelled", "Stopped"

    ACTIVE = (Status.QUEUED, Status.RUNNING)
    #: Its file is still needed.
    OPEN = (Status.PREVIEW, *ACTIVE)

    project = models.ForeignKey(
        "feedback.Project", on_delete=models.CASCADE, related_name="import_jobs"
    )
    # whose votes the labels become
    by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="import_jobs"
    )
    name = models.CharField(max_length=200)
    path = models.CharField(max_length=1000)
    # ours to delete when the import has ended; a file named on the command line is not
    uploaded = models.BooleanField(default=False)
    # each chunk is written and taken back: the numbers and refusals say what would happen
    dry_run = models.BooleanField(default=False)
    # what the file calls the columns that we know, where it has names of its own
    columns: Any = models.JSONField(default=dict)
    # which of its labels mean up and which down, where they are words of its own
    labels_up: Any = models.JSONField(default=list)
    labels_down: Any = models.JSONField(default=list)
    status = models.CharField(max_length=9, choices=Status.choices, default=Status.PREVIEW)
    # number of the last row that is done with, and how much of the file that is
    offset = models.PositiveBigIntegerField(default=0)
    share = models.FloatField(default=0)
    rows = models.PositiveBigIntegerField(default=0)
    imported = models.PositiveBigIntegerField(default=0)
    # how many of those are gold items
    gold = models.PositiveBigIntegerField(default=0)
    prompts = models.PositiveBigIntegerField(default=0)
    duplicates = models.PositiveBigIntegerField(default=0)
    refused = models.PositiveBigIntegerField(default=0)
    error = models.TextField(blank=True)
    finished_at = models.DateTimeField(null=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["project"],
                condition=Q(status__in=["queued", "running"]),
                name="one_import_at_a_time",
            )
        ]
        indexes: ClassVar = [models.Index(fields=["project", "-id"], name="import_recent")]

    def __str__(self) -> str:
        return self.name

    @property
    def active(self) -> bool:
        return self.status in self.ACTIVE


class ImportRefusal(models.Model):
    """A row that was not imported, and why."""

    job = models.ForeignKey(ImportJob, on_delete=models.CASCADE, related_name="refusals")
    number = models.PositiveBigIntegerField()
    reason = models.CharField(max_length=300)
    excerpt = models.TextField(blank=True)

    class Meta:
        indexes: ClassVar = [models.Index(fields=["job", "id"], name="refusal_in_order")]

    def __str__(self) -> str:
        return f"row {self.number}: {self.reason}"
