"""Votes with their event log, corrections, and final verdicts."""

from typing import Any, ClassVar, Self

from django.conf import settings
from django.db import models
from django.db.models import Q, QuerySet

from feedback_app.accounts.models import User
from feedback_app.feedback.models.choices import Source, Verdict
from feedback_app.feedback.models.gold import VoteMarks
from feedback_app.feedback.models.guidelines import GuidedVote
from feedback_app.feedback.models.projects import Project


class VoteQuerySet(QuerySet["Vote"]):
    def recent_of(self, user: User) -> Self:
        """Newest first, with everything that a list of a person's votes shows."""
        return (
            self.filter(user=user)
            .select_related("completion__prompt", "completion__example")
            .defer("completion__prompt_token_ids", "completion__token_ids")
            .order_by("-updated_at", "-pk")
        )

    def standing(self) -> Self:
        """Votes that count: without those that are set aside."""
        return self.filter(set_aside=None)

    def with_person(self) -> Self:
        """In the order in which they were cast, each with its user."""
        return self.select_related("user").order_by("created_at", "pk")


class Vote(GuidedVote, VoteMarks):
    """One person's verdict on one completion; casting again changes it."""

    completion = models.ForeignKey(
        "feedback.Completion", on_delete=models.CASCADE, related_name="votes"
    )
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="votes"
    )
    # denormalised so that a person's last votes in a project are one index range
    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="votes")
    verdict = models.CharField(max_length=4, choices=Verdict.choices)
    reasons: Any = models.JSONField(default=list)
    comment = models.TextField(blank=True)
    source = models.CharField(max_length=10, choices=Source.choices)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    objects = VoteQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["completion", "user"], name="one_vote_per_person")
        ]
        indexes: ClassVar = [
            models.Index(fields=["project", "user", "-updated_at"], name="vote_recent"),
        ]

    def __str__(self) -> str:
        return f"{self.verdict} by {self.user_id}"


class VoteEvent(GuidedVote):
    """An event of a vote: cast, changed or undone. Never changed."""

    completion = models.ForeignKey(
        "feedback.Completion", on_delete=models.CASCADE, related_name="vote_events"
    )
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    # empty: undone
    verdict = models.CharField(max_length=4, choices=Verdict.choices, blank=True)
    source = models.CharField(max_length=10, choices=Source.choices)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        indexes: ClassVar = [
            models.Index(
                fields=["user", "created_at"], condition=Q(verdict=""), name="event_undone"
            )
        ]

    def __str__(self) -> str:
        return f"{self.verdict or 'undone'} by {self.user_id}"


class FollowUp(models.Model):
    """What a reader did after an answer, in the demo or in a product: a hint at a verdict.

    Written by serving/follow_ups; it is no vote, and counts for a snapshot only under the rule of
    follow_ups/agreement.py.
    """

    class Kind(models.TextChoices):
        REGENERATED = "again", "Regenerated"
        STOPPED = "stopped", "Stopped"
        REPHRASED = "rephrased", "Asked again in other words"
        COPIED = "copied", "Copied"
        THANKED = "thanked", "Thanked"

    #: Kinds that speak for the answer; the others speak against it.
    FOR = (Kind.COPIED, Kind.THANKED)

    completion = models.ForeignKey(
        "feedback.Completion", on_delete=models.CASCADE, related_name="follow_ups"
    )
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="follow_up_rows")
    kind = models.CharField(max_length=9, choices=Kind.choices)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["completion", "user", "kind"], name="one_follow_up_of_a_kind"
            )
        ]
        indexes: ClassVar = [models.Index(fields=["project", "-id"], name="follow_up_newest")]

    def __str__(self) -> str:
        return f"{self.kind} by {self.user_id}"


class Correction(models.Model):
    """One person's correction of one answer; a withdrawn one no longer counts.

    The answer has their down vote, the corrected text is a completion of its own with their up.
    """

    original = models.ForeignKey(
        "feedback.Completion", on_delete=models.CASCADE, related_name="corrections"
    )
    completion = models.OneToOneField(
        "feedback.Completion", on_delete=models.CASCADE, related_name="correction"
    )
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="corrections"
    )
    created_at = models.DateTimeField(auto_now_add=True)
    # kept, so that the text is found when its writer is erased
    withdrawn_at = models.DateTimeField(null=True)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["original", "user"],
                condition=Q(withdrawn_at=None),
                name="one_correction_per_person",
            )
        ]

    def __str__(self) -> str:
        return f"of {self.original_id} by {self.user_id}"


class Adjudication(models.Model):
    """A request for a final verdict on a completion, and the verdict.

    Contested completions need no row. `open` marks a request that is not answered yet; a `verdict`
    decides the example.
    """

    completion = models.OneToOneField(
        "feedback.Completion",
        on_delete=models.CASCADE,
        related_name="adjudication",
        primary_key=True,
    )
    project = models.ForeignKey(
        "feedback.Project", on_delete=models.CASCADE, related_name="adjudications"
    )
    open = models.BooleanField(default=False)
    # why it was requested; empty: it was contested, not requested
    asked = models.CharField(max_length=200, blank=True)
    asked_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    asked_at = models.DateTimeField(null=True)
    # empty: no verdict yet
    verdict = models.CharField(max_length=4, choices=[("up", "Up"), ("down", "Down")], blank=True)
    why = models.CharField(max_length=500, blank=True)
    by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    resolved_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "feedback_resolution"
        indexes: ClassVar = [
            models.Index(fields=["project", "asked_at"], condition=Q(open=True), name="asked"),
            models.Index(fields=["project", "-resolved_at"], name="resolved"),
        ]

    def __str__(self) -> str:
        return f"{self.verdict or 'open'}: {self.completion_id}"
