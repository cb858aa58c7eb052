"""Traffic splits between the live version and a candidate, and their assignments."""

from typing import ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Q

from feedback_app.feedback.models import Completion, Project, Verdict
from feedback_app.training.models import Adapter


class TrafficSplit(models.Model):
    """Sends a share of the new conversations with `live` to a candidate, until one version is
    better or a person ends it."""

    class Status(models.TextChoices):
        RUNNING = "running", "Running"
        PROMOTED = "promoted", "Candidate made live"
        WORSE = "worse", "Worse: stopped"
        STOPPED = "stopped", "Stopped"

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="traffic_splits")
    candidate = models.ForeignKey(Adapter, on_delete=models.PROTECT, related_name="traffic_splits")
    # what it is compared with: live at the start; another release ends the split
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


class Assignment(models.Model):
    """The side of a split that a conversation is assigned to while the split runs, and its vote if
    the test counts it."""

    split = models.ForeignKey(TrafficSplit, on_delete=models.CASCADE, related_name="assignments")
    # the conversation; for the gateway the product's user or the first question (assignments.py)
    key = models.CharField(max_length=80)
    # whether the candidate was drawn, and at which percentage
    candidate = models.BooleanField()
    percent = models.PositiveSmallIntegerField()
    # who voted in the conversation (services.py); empty until a vote was looked at
    voter = models.CharField(max_length=40, blank=True)
    # the counted vote and its position in the order of counting; empty until it is counted, and for
    # good if another vote of this person is
    verdict = models.CharField(max_length=4, choices=Verdict.choices, blank=True)
    counted = models.PositiveIntegerField(null=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["split", "key"], name="one_seat_per_split"),
            models.UniqueConstraint(fields=["split", "counted"], name="one_seat_a_count"),
            models.UniqueConstraint(
                fields=["split", "voter"],
                condition=Q(counted__isnull=False) & ~Q(voter=""),
                name="one_counted_vote_a_person",
            ),
        ]
        # a conversation looks its assignment up by key alone
        indexes: ClassVar = [models.Index(fields=["key"], name="seat_key")]
        db_table = "serving_seat"

    def __str__(self) -> str:
        return f"{self.key}: {self.version}"

    @property
    def version(self) -> str:
        """Return the version that answers."""
        return self.split.candidate.name if self.candidate else self.split.live_version


class AssignmentAnswer(models.Model):
    """An answer given under a split: how long it took and how it ended."""

    class End(models.TextChoices):
        WHOLE = "whole", "Written to its end"
        LEFT = "left", "The reader stopped it or went away"
        FAILED = "failed", "The engine failed"

    assignment = models.ForeignKey(Assignment, on_delete=models.CASCADE, related_name="answers")
    # empty if nothing was written
    completion = models.OneToOneField(
        Completion, null=True, on_delete=models.CASCADE, related_name="assignment_answer"
    )
    end = models.CharField(max_length=6, choices=End.choices)
    # from the request to the first piece and to the end
    first_seconds = models.FloatField(null=True)
    seconds = models.FloatField()
    words = models.PositiveIntegerField(default=0)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        db_table = "serving_seatanswer"

    def __str__(self) -> str:
        return f"{self.end} after {self.seconds:.1f} s"
