"""Votes and their event log."""

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
