"""Blind pairs of two versions, which people judge for the gate."""

from typing import Any, ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Q

from feedback_app.feedback.models import Project, Prompt
from feedback_app.training.querysets import BlindPairQuerySet, PairBatchQuerySet


class PairBatch(models.Model):
    """A version's answers beside live's, for people to judge blind (gate/people).

    It ends once: from `decided_at` on the verdict of `counts` is in the version's gate report.
    """

    class End(models.TextChoices):
        """Why a batch has ended; an open one has none."""

        DECIDED = "decided", "Decided"
        JUDGED = "judged", "All pairs judged"
        CLOSED = "closed", "Closed by an admin"

    adapter = models.OneToOneField(
        "training.Adapter", on_delete=models.CASCADE, related_name="pair_batch"
    )
    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="pair_batches")
    # prompts to which both versions gave the same answer: ties, which nobody is asked about
    same = models.PositiveIntegerField(default=0)
    end = models.CharField(max_length=7, choices=End.choices, blank=True)
    ended_at = models.DateTimeField(null=True)
    # the votes as they were at the end (gate/people/counts.py)
    counts: Any = models.JSONField(default=dict)
    decided_at = models.DateTimeField(null=True)
    created_at = models.DateTimeField(auto_now_add=True)

    objects = PairBatchQuerySet.as_manager()

    class Meta:
        indexes: ClassVar = [
            models.Index(fields=["project"], condition=Q(end=""), name="pair_batch_open"),
            models.Index(fields=["ended_at"], condition=Q(decided_at=None), name="pair_batch_due"),
        ]

    def __str__(self) -> str:
        return f"pairs of {self.adapter_id}"


class BlindPair(models.Model):
    """One prompt with the first answers of the candidate and live. Deleted with the prompt."""

    batch = models.ForeignKey(PairBatch, on_delete=models.CASCADE, related_name="pairs")
    position = models.PositiveIntegerField()
    prompt = models.ForeignKey(Prompt, on_delete=models.CASCADE, related_name="+")
    messages: Any = models.JSONField()
    candidate_text = models.TextField(blank=True)
    live_text = models.TextField(blank=True)

    objects = BlindPairQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["batch", "position"], name="blind_pair_position")
        ]

    def __str__(self) -> str:
        return f"pair {self.position + 1}"


class PairVote(models.Model):
    """One person's choice between the answers of a blind pair; choosing again changes it."""

    class Choice(models.TextChoices):
        CANDIDATE = "candidate", "The candidate"
        LIVE = "live", "Live"
        TIE = "tie", "No difference"
        SKIP = "skip", "Skipped"

    class Side(models.TextChoices):
        """The choice as the person saw it; it names no version."""

        LEFT = "left", "A is better"
        RIGHT = "right", "B is better"
        TIE = "tie", "No difference"
        SKIP = "skip", "Skipped"

    pair = models.ForeignKey(BlindPair, on_delete=models.CASCADE, related_name="votes")
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="pair_votes"
    )
    choice = models.CharField(max_length=9, choices=Choice.choices)
    side = models.CharField(max_length=5, choices=Side.choices)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["pair", "user"], name="one_pair_vote_per_person")
        ]
        indexes: ClassVar = [models.Index(fields=["user", "-updated_at"], name="pair_vote_recent")]

    def __str__(self) -> str:
        return f"{self.choice} by {self.user_id}"
