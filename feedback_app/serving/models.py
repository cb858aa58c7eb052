"""What is live, since when and by whom; and the demo's conversations."""

import uuid
from typing import Any, ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Q

from feedback_app.feedback.models import BASE_VERSION, Completion, Project, Verdict
from feedback_app.serving.models_changes import ChangeReport as ChangeReport
from feedback_app.serving.models_changes import FixedAnswer as FixedAnswer
from feedback_app.serving.models_changes import FixedPrompt as FixedPrompt
from feedback_app.serving.models_share import ShareLink as ShareLink
from feedback_app.serving.models_share import ShareVisitor as ShareVisitor
from feedback_app.training.models import Adapter


class Release(models.Model):
    """Which version answers as `live`, from `since` until `until`. History is kept."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="releases")
    # empty: the base model
    adapter = models.ForeignKey(
        Adapter, null=True, on_delete=models.PROTECT, related_name="releases"
    )
    live = models.BooleanField(default=True)
    released_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    reason = models.CharField(max_length=200, blank=True)
    # the version before it could not be served any more
    fallback = models.BooleanField(default=False)
    since = models.DateTimeField(auto_now_add=True)
    until = models.DateTimeField(null=True)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["project"], condition=Q(live=True), name="one_live_release_per_project"
            )
        ]
        indexes: ClassVar = [models.Index(fields=["project", "-since"], name="release_timeline")]

    def __str__(self) -> str:
        return self.version

    @property
    def version(self) -> str:
        """The adapter's name, or 'base'."""
        return self.adapter.name if self.adapter else BASE_VERSION


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


class Conversation(models.Model):
    """One person's chat with the demo."""

    LIVE = "live"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="conversations")
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="conversations"
    )
    title = models.CharField(max_length=120, blank=True)
    # 'live', 'base' or an adapter's name: what the person picked
    choice = models.CharField(max_length=80, default=LIVE)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        indexes: ClassVar = [
            models.Index(fields=["project", "user", "-updated_at"], name="conversation_recent")
        ]

    def __str__(self) -> str:
        return self.title or "New conversation"


class Turn(models.Model):
    """What the user said, and the completion that answered it (empty while it streams)."""

    conversation = models.ForeignKey(Conversation, on_delete=models.CASCADE, related_name="turns")
    position = models.PositiveIntegerField()
    user_message = models.TextField()
    completion = models.ForeignKey(
        Completion, null=True, on_delete=models.SET_NULL, related_name="turns"
    )
    error = models.TextField(blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["conversation", "position"], name="one_turn_a_position")
        ]
        ordering: ClassVar = ["position"]

    def __str__(self) -> str:
        return self.user_message[:60]

    def as_messages(self) -> list[dict[str, Any]]:
        """The turn as chat messages; an unanswered one has only the user's."""
        messages = [{"role": "user", "content": self.user_message}]
        if self.completion is not None:
            messages.append({"role": "assistant", "content": self.completion.text})
        return messages


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
    # 'base' or an adapter's name; which of the two is left was drawn
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
            # with what is counted, so that a tally reads the index alone
            models.Index(
                fields=["project", "left_version", "right_version", "choice"],
                name="comparison_tally",
            ),
        ]

    def __str__(self) -> str:
        return self.question[:60]

    @property
    def ready(self) -> bool:
        """Whether both answers are whole: half an answer says nothing about its version."""
        return all(
            answer is not None and answer.finish_reason != Completion.Finish.ABORTED
            for answer in (self.left, self.right)
        )
