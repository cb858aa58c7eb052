"""Traffic splits between the live version and a candidate, and who was assigned to which."""

from typing import ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Q

from feedback_app.feedback.models import Completion, Project, Verdict
from feedback_app.training.models import Adapter


class TrafficSplit(models.Model):
    """A share of the new conversations with `live` goes to a candidate, until one of them is better
    or somebody ends it."""

    class Status(models.TextChoices):
        RUNNING = "running", "Running"
        PROMOTED = "promoted", "Candidate made live"
        WORSE = "worse", "Worse: stopped"
        STOPPED = "stopped", "Stopped"

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="traffic_splits")
    candidate = models.ForeignKey(Adapter, on_delete=models.PROTECT, related_name="traffic_splits")
    # what it is held against: live when it began; another release ends the split
    live_version = models.CharField(max_length=80)
    percent = models.PositiveSmallIntegerField()
    auto_promote = models.BooleanField(default=False)
    auto_stop = models.BooleanField(default=True)
    status = models.CharField(max_length=8, choices=Status.choices, default=Status.RUNNING)
    # why it ended
    reason = models.CharField(max_length=200, blank=True)
    started_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    started_at = models.DateTimeField(auto_now_add=True)
    ended_at = models.DateTimeField(null=True)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["project"],
                condition=Q(status="running"),
                name="one_running_split_per_project",
            ),
            models.CheckConstraint(
                condition=Q(percent__gte=1) & Q(percent__lte=99), name="split_percent_1_to_99"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.percent} % to {self.candidate.name}"

    @property
    def running(self) -> bool:
        return self.status == self.Status.RUNNING


class Seat(models.Model):
    """Which side of a split a conversation is on, for as long as the split runs; and the one vote
    of it that the test counts."""

    split = models.ForeignKey(TrafficSplit, on_delete=models.CASCADE, related_name="seats")
    # the conversation, or for the gateway the product's user or the first question (seats.py)
    key = models.CharField(max_length=80)
    # whether it fell to the candidate, and at which percentage it was drawn
    candidate = models.BooleanField()
    percent = models.PositiveSmallIntegerField()
    # the counted vote, and its place in the order of counting; empty until it is counted
    verdict = models.CharField(max_length=4, choices=Verdict.choices, blank=True)
    counted = models.PositiveIntegerField(null=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["split", "key"], name="one_seat_per_split"),
            models.UniqueConstraint(fields=["split", "counted"], name="one_seat_a_count"),
        ]
        # a conversation looks its seat up without knowing the split
        indexes: ClassVar = [models.Index(fields=["key"], name="seat_key")]

    def __str__(self) -> str:
        return f"{self.key}: {self.version}"

    @property
    def version(self) -> str:
        """What answers from this seat."""
        return self.split.candidate.name if self.candidate else self.split.live_version


class SeatAnswer(models.Model):
    """One answer given under a split: how long it took and how it ended."""

    class End(models.TextChoices):
        WHOLE = "whole", "Written to its end"
        LEFT = "left", "The reader stopped it or went away"
        FAILED = "failed", "The engine failed"

    seat = models.ForeignKey(Seat, on_delete=models.CASCADE, related_name="answers")
    # empty: nothing was written
    completion = models.OneToOneField(
        Completion, null=True, on_delete=models.CASCADE, related_name="seat_answer"
    )
    end = models.CharField(max_length=6, choices=End.choices)
    # from the request to the first piece and to the end
    first_seconds = models.FloatField(null=True)
    seconds = models.FloatField()
    words = models.PositiveIntegerField(default=0)
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"{self.end} after {self.seconds:.1f} s"
