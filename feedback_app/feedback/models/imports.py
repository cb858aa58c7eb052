"""Imports: their progress and the rows that were refused."""

from typing import Any, ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Q


class ImportJob(models.Model):
    """One file that is imported into a project.

    `offset` is committed together with the rows before it, so any worker can continue there.
    """

    class Status(models.TextChoices):
        PREVIEW = "preview", "Not started"
        QUEUED = "queued", "Waiting"
        RUNNING = "running", "Importing"
        DONE = "done", "Done"
        FAILED = "failed", "Failed"
        CANCELLED = "cancelled", "Stopped"

    ACTIVE = (Status.QUEUED, Status.RUNNING)

    project = models.ForeignKey(
        "feedback.Project", on_delete=models.CASCADE, related_name="import_jobs"
    )
    # labels become votes of this user
    by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="import_jobs"
    )
    name = models.CharField(max_length=200)
    path = models.CharField(max_length=1000)
    # whether to delete the file after the import; a file from the command line is kept
    uploaded = models.BooleanField(default=False)
    # dry run: each chunk is rolled back, the counts and refusals are kept
    dry_run = models.BooleanField(default=False)
    # our field names mapped to the file's column names, where they differ
    columns: Any = models.JSONField(default=dict)
    # the file's own labels that mean up and down
    labels_up: Any = models.JSONField(default=list)
    labels_down: Any = models.JSONField(default=list)
    status = models.CharField(max_length=9, choices=Status.choices, default=Status.PREVIEW)
    # number of the last processed row, and the share of the file up to it
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
    # the claim: the worker that raised `attempt` owns the job while its heartbeat is fresh
    attempt = models.PositiveSmallIntegerField(default=0)
    heartbeat_at = models.DateTimeField(null=True)
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
