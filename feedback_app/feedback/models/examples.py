"""KTO examples, derived from the votes on a completion."""

from typing import ClassVar

from django.db import models
from django.db.models import Count, Q, QuerySet

from feedback_app.feedback.models.choices import Split
from feedback_app.feedback.models.projects import Project


class ExampleQuerySet(QuerySet["Example"]):
    def counts(self) -> dict[str, int]:
        """Return numbers by split and label, as `train_up` or `test_down`."""
        rows = self.order_by().values_list("split", "desirable").annotate(n=Count("pk"))
        found = {(split, desirable): n for split, desirable, n in rows}
        return {
            f"{split}_{'up' if desirable else 'down'}": found.get((split, desirable), 0)
            for split in Split.values
            for desirable in (True, False)
        }


class Example(models.Model):
    """The KTO example of a completion; a tie has none. Written by examples/services.py only."""

    completion = models.OneToOneField(
        "feedback.Completion", on_delete=models.CASCADE, related_name="example", primary_key=True
    )
    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="examples")
    desirable = models.BooleanField()
    weight = models.FloatField()
    split = models.CharField(max_length=10, choices=Split.choices)
    # number of the last finished run that trained on it, shown with the votes
    used_in_run = models.PositiveIntegerField(null=True)
    # schedules count examples since a time by it
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    objects = ExampleQuerySet.as_manager()

    class Meta:
        indexes: ClassVar = [
            models.Index(fields=["project", "split", "desirable"], name="example_counts"),
            models.Index(fields=["project", "created_at", "completion"], name="example_newest"),
        ]
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=Q(weight__gt=0) & Q(weight__lte=1), name="weight_in_0_1"
            )
        ]

    def __str__(self) -> str:
        return f"{'desirable' if self.desirable else 'undesirable'} {self.pk}"
