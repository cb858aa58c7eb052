"""Comparisons of two versions, judged blind."""

import uuid
from typing import ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Q

from feedback_app.feedback.models import Completion, Project


class Comparison(models.Model):
    """One question answered by two versions, judged before their names are shown."""

    class Choice(models.TextChoices):
        LEFT = "left", "A is better"
        RIGHT = "right", "B is better"
        BOTH = "both", "Both are good"
        NEITHER = "neither", "Both are bad"
        WITHDRAWN = "withdrawn", "Taken back"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="comparisons")
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="comparisons"
    )
    question = models.TextField()
    # 'base' or an adapter's name, in random order
    left_version = models.CharField(max_length=80)
    right_version = models.CharField(max_length=80)
    left = models.ForeignKey(Completion, null=True, on_delete=models.SET_NULL, related_name="+")
    right = models.ForeignKey(Completion, null=True, on_delete=models.SET_NULL, related_name="+")
    left_error = models.TextField(blank=True)
    right_error = models.TextField(blank=True)
    # empty: not judged yet
    choice = models.CharField(max_length=9, choices=Choice.choices, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        indexes: ClassVar = [
            models.Index(fields=["project", "user", "-created_at"], name="comparison_recent"),
            # those of a result
            models.Index(
                fields=["project", "-created_at", "-id"],
                condition=~Q(choice=""),
                name="comparison_judged",
            ),
        ]

    def __str__(self) -> str:
        return self.question[:60]

    @property
    def ready(self) -> bool:
        """Return whether both answers are complete."""
        return all(
            answer is not None and answer.finish_reason != Completion.Finish.ABORTED
            for answer in (self.left, self.right)
        )
