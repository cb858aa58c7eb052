"""Figures over a whole project, counted by a worker."""

from typing import Any, ClassVar

from django.db import models

from feedback_app.db.claims import Claimable


class Figures(Claimable):
    """The stored result of a count over a table that is too large to be read by a page."""

    class Status(models.TextChoices):
        QUEUED = "queued", "Waiting"
        RUNNING = "running", "Counting"
        DONE = "done", "Done"

    project = models.ForeignKey(
        "feedback.Project", on_delete=models.CASCADE, related_name="figures"
    )
    # what was counted: a key of the module that counts it
    name = models.CharField(max_length=40)
    status = models.CharField(max_length=8, choices=Status.choices, default=Status.QUEUED)
    # counted again every minute while pages show it: a small integer would overflow
    attempt = models.PositiveIntegerField(default=0)
    # empty until it was counted once
    value: Any = models.JSONField(null=True)
    counted_at = models.DateTimeField(null=True)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["project", "name"], name="one_row_per_figures")
        ]

    def __str__(self) -> str:
        return f"{self.name} of project {self.project_id}"
