"""Completions: answers of model versions to prompts."""

import datetime as dt
from typing import Any, ClassVar, Self

from django.db import models
from django.db.models import Count, Exists, F, OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import Coalesce

from feedback_app.accounts.models import User
from feedback_app.feedback.models.choices import Source
from feedback_app.feedback.models.gold import CompletionMarks
from feedback_app.feedback.models.projects import Project
from feedback_app.feedback.models.prompts import Prompt
from feedback_app.feedback.models.queue import (
    FIRST_ONLY,
    ORDERS,
    QUEUE_INDEXES,
    Skip,
    leases_on,
)
from feedback_app.feedback.models.votes import Vote


class CompletionQuerySet(QuerySet["Completion"]):
    def in_queue(self) -> Self:
        return self.filter(queued=True, flagged=False)

    def in_queue_order(self, order: str = "balanced") -> list[Self]:
        """Return the parts of the queue in order; a later part may repeat rows."""
        first = FIRST_ONLY.get(order)
        if first is None:
            return [self.order_by(*ORDERS[order])]
        return [
            self.filter(first).order_by(*ORDERS[order]),
            self.order_by(*ORDERS["balanced"]),
        ]

    def unanswered_by(self, user: User, *, overlap: int) -> Self:
        """Exclude completions that `user` has voted on or skipped."""
        mine = {"completion": OuterRef("pk"), "user": user}
        unskipped = self.exclude(Exists(Skip.objects.filter(**mine)))
        # at an overlap of one, a completion that needs votes has none
        return unskipped if overlap == 1 else unskipped.exclude(Exists(Vote.objects.filter(**mine)))

    def gold_for(self, user: User) -> Self:
        """Gold items that `user` has neither judged nor skipped."""
        return self.filter(gold=True, flagged=False).unanswered_by(user, overlap=2)

    def needs_votes(self, overlap: int) -> Self:
        return self.filter(vote_count__lt=overlap)

    def wanted_from(self, user: User, *, overlap: int) -> Self:
        """Queued, short of votes, and neither judged nor skipped by `user`."""
        return self.in_queue().needs_votes(overlap).unanswered_by(user, overlap=overlap)

    def open_for(self, user: User, *, overlap: int, now: dt.datetime | None = None) -> Self:
        """Wanted from `user`, with a slot that nobody else holds."""
        wanted = self.wanted_from(user, overlap=overlap)
        others = leases_on(now).exclude(user=user)
        if overlap == 1:
            return wanted.exclude(Exists(others))
        held = others.order_by().values("completion").annotate(n=Count("pk")).values("n")
        return wanted.alias(held=Coalesce(Subquery(held), 0)).filter(
            vote_count__lt=overlap - F("held")
        )

    def to_hand_out(
        self, user: User, *, overlap: int, now: dt.datetime, ahead: bool = False
    ) -> Self:
        """Open for `user` and not leased to them; with `ahead`, also what they hold ahead."""
        leases = leases_on(now)
        if overlap == 1:
            # any lease excludes it, also their own
            taken = leases.exclude(user=user, ahead=True) if ahead else leases
            return self.wanted_from(user, overlap=1).exclude(Exists(taken))
        mine = leases.filter(user=user, ahead=False) if ahead else leases.filter(user=user)
        return self.open_for(user, overlap=overlap, now=now).exclude(Exists(mine))


class Completion(CompletionMarks):
    """One answer of one version to one prompt. Text and token ids never change."""

    class Finish(models.TextChoices):
        STOP = "stop", "Complete"
        LENGTH = "length", "Cut at the token limit"
        ABORTED = "aborted", "Stopped by the reader or a fault"

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="completions")
    prompt = models.ForeignKey(Prompt, on_delete=models.CASCADE, related_name="completions")
    text = models.TextField()
    # of prompt, system prompt and text, for finding duplicates in imports
    content_hash = models.CharField(max_length=64, blank=True)
    # 'base', 'import' or an adapter's name; no foreign key, as the registry is in a higher layer
    version = models.CharField(max_length=80)
    system_prompt = models.TextField(blank=True)
    prompt_token_ids: Any = models.JSONField(null=True)
    token_ids: Any = models.JSONField(null=True)
    finish_reason = models.CharField(max_length=8, choices=Finish.choices)
    source = models.CharField(max_length=10, choices=Source.choices)
    # who the answer was for, as far as it is known: a role, a share link, or a product's own label
    user_group = models.CharField(max_length=40, blank=True, default="", db_default="")
    # the product's own id of the message that shows it, for its feedback
    message_id = models.CharField(max_length=100, blank=True, default="", db_default="")
    sampling = models.ForeignKey(
        "Sampling", null=True, on_delete=models.SET_NULL, related_name="completions"
    )
    # whether and in which order annotators get it
    queued = models.BooleanField(default=False)
    queue_position = models.PositiveBigIntegerField(default=0)
    # updated in the vote's transaction, so that the queue never counts votes
    vote_count = models.PositiveSmallIntegerField(default=0)
    # it has ups and downs
    contested = models.BooleanField(default=False)
    flagged = models.BooleanField(default=False)
    # denormalised so that each order and filter of the queue is one index range:
    # the number in `version` (0: base and imports), and the prompt's topic
    version_number = models.PositiveIntegerField(default=0)
    topic = models.CharField(max_length=60, blank=True)
    # |r − z₀| in nats from the last run that used it; small: the model is unsure
    unsure = models.FloatField(null=True)
    created_at = models.DateTimeField(auto_now_add=True)

    objects = CompletionQuerySet.as_manager()

    class Meta:
        indexes: ClassVar = [
            *QUEUE_INDEXES,
            models.Index(fields=["project", "version", "id"], name="version_in_order"),
            models.Index(fields=["project", "content_hash"], name="completion_content"),
            models.Index(
                fields=["project", "message_id", "id"],
                condition=~Q(message_id=""),
                name="completion_message",
            ),
            models.Index(fields=["project"], condition=Q(gold=True), name="completion_gold"),
            models.Index(
                fields=["project", "id"], condition=Q(flagged=True), name="flagged_in_order"
            ),
            # with what is filtered by, so that a count reads the index only
            models.Index(
                fields=["project", "id", "vote_count", "queued"],
                condition=Q(contested=True, decided=""),
                name="contested_in_order",
            ),
        ]

    def __str__(self) -> str:
        return self.text[:60]
