"""Samplings: requests to have a version answer the prompts."""

from typing import ClassVar

from django.db import models
from django.db.models import F, Q

from feedback_app.db.claims import Claimable
from feedback_app.feedback.models.choices import BASE_VERSION
from feedback_app.feedback.models.projects import Project


class Sampling(Claimable):
    """A request to have a version answer the project's prompts, so that people can vote."""

    class Status(models.TextChoices):
        QUEUED = "queued", "Waiting"
        RUNNING = "running", "Sampling"
        DONE = "done", "Done"
        FAILED = "failed", "Failed"
        CANCELLED = "cancelled", "Cancelled"

    ACTIVE = (Status.QUEUED, Status.RUNNING)

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="samplings")
    version = models.CharField(max_length=80, default=BASE_VERSION)
    answers_per_prompt = models.PositiveSmallIntegerField(default=2)
    status = models.CharField(max_length=9, choices=Status.choices, default=Status.QUEUED)
    done = models.PositiveIntegerField(default=0)
    total = models.PositiveIntegerField(default=0)
    error = models.TextField(blank=True)
    started_at = models.DateTimeField(null=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints: ClassVar = [
            models.CheckConstraint(condition=Q(done__lte=F("total")), name="sampling_done_in_total")
        ]

    def __str__(self) -> str:
        return f"{self.done} of {self.total} answers"

    @property
    def active(self) -> bool:
        return self.status in self.ACTIVE
