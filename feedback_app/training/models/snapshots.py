"""Snapshots of examples, which runs train on."""

from typing import Any, ClassVar

from django.db import models
from django.db.models import Q

from feedback_app.db.claims import Claimable
from feedback_app.feedback.models import Completion, Project, Split


class Snapshot(Claimable):
    """The frozen examples of a run. The rows are the truth, the file is a copy.

    Until a worker has taken it (runs/execution/taking.py) it has no examples and all counts are 0.
    """

    class Status(models.TextChoices):
        QUEUED = "queued", "Waiting"
        RUNNING = "running", "Being taken"
        TAKEN = "taken", "Taken"

    status = models.CharField(
        max_length=7, choices=Status.choices, default=Status.TAKEN, db_default=Status.TAKEN
    )
    attempt = models.PositiveSmallIntegerField(default=0, db_default=0)
    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="snapshots")
    train_up = models.PositiveIntegerField()
    train_down = models.PositiveIntegerField()
    validation_up = models.PositiveIntegerField(default=0, db_default=0)
    validation_down = models.PositiveIntegerField(default=0, db_default=0)
    test_up = models.PositiveIntegerField(default=0, db_default=0)
    test_down = models.PositiveIntegerField(default=0, db_default=0)
    # examples left out by the cap on the votes of one person
    left_out = models.PositiveIntegerField(default=0)
    left_out_people = models.PositiveIntegerField(default=0)
    # training examples that follow from what readers did next, among those above
    follow_ups = models.PositiveIntegerField(default=0, db_default=0)
    # SHA-256 over the training file, set when it is written
    sha256 = models.CharField(max_length=64, blank=True)
    # of a copy: {"snapshot": its original, "kind", "key": the group of votes that it leaves out}
    # (training/influence)
    without: Any = models.JSONField(null=True)
    # when it was taken: it follows from the votes of then
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"{self.train_up} up, {self.train_down} down"

    @property
    def taken(self) -> bool:
        return self.status == self.Status.TAKEN

    @property
    def train_total(self) -> int:
        return self.train_up + self.train_down

    @property
    def validation_total(self) -> int:
        return self.validation_up + self.validation_down

    @property
    def test_total(self) -> int:
        return self.test_up + self.test_down


class SnapshotItem(models.Model):
    """An example as it was when the snapshot was taken."""

    snapshot = models.ForeignKey(Snapshot, on_delete=models.CASCADE, related_name="items")
    completion = models.ForeignKey(
        Completion, on_delete=models.CASCADE, related_name="snapshot_items"
    )
    desirable = models.BooleanField()
    weight = models.FloatField()
    split = models.CharField(max_length=10, choices=Split.choices)
    # it follows from what a reader did next (snapshots/follow_ups.py): nobody has voted
    implicit = models.BooleanField(default=False, db_default=False)
    # reward of the trained policy and z0 of its step, in nats; empty until the run has ended
    reward = models.FloatField(null=True)
    reference_point = models.FloatField(null=True)
    # by how many nats the reward is on the label's side of z0: the order of the explorer
    margin = models.FloatField(null=True)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["snapshot", "completion"], name="once_per_snapshot")
        ]
        indexes: ClassVar = [
            models.Index(
                fields=["snapshot", "margin", "id"],
                condition=Q(margin__isnull=False),
                name="item_by_margin",
            )
        ]

    def __str__(self) -> str:
        return f"{self.completion_id} in {self.snapshot_id}"

    @property
    def distance(self) -> float:
        """The size of the margin."""
        return abs(self.margin or 0.0)
