"""Gold items, the answers to them, and pauses."""

from typing import Any, ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Q


class CompletionMarks(models.Model):
    """Fields of a Completion that admins set."""

    # the final verdict, if any: it decides the example, whatever the votes are
    decided = models.CharField(max_length=4, blank=True)
    # in the gold set; a GoldItem has the details
    gold = models.BooleanField(default=False)
    # the example's weight is multiplied by it; 0: no example
    training_weight = models.FloatField(null=True, blank=True)

    class Meta:
        abstract = True


class VoteMarks(models.Model):
    """Fields of a Vote that the system sets."""

    # cast faster than the answer can be read
    hasty = models.BooleanField(default=False)
    # not counted while it is set; no index, as it is queried by person only
    set_aside = models.ForeignKey(
        "feedback.Pause",
        null=True,
        on_delete=models.SET_NULL,
        related_name="votes",
        db_index=False,
    )

    class Meta:
        abstract = True


class GoldItem(models.Model):
    """A completion with a known verdict, and the reason for the verdict."""

    completion = models.OneToOneField(
        "feedback.Completion", on_delete=models.CASCADE, related_name="gold_item", primary_key=True
    )
    project = models.ForeignKey(
        "feedback.Project", on_delete=models.CASCADE, related_name="gold_items"
    )
    verdict = models.CharField(max_length=4, choices=[("up", "Up"), ("down", "Down")])
    # shown to people whose verdict was wrong
    why = models.CharField(max_length=500, blank=True)
    by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    # whether it returns to the queue when it is removed from the gold set
    was_queued = models.BooleanField()
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        indexes: ClassVar = [
            models.Index(fields=["project", "-created_at", "-completion"], name="gold_newest")
        ]

    def __str__(self) -> str:
        return f"{self.verdict} for {self.completion_id}"


class GoldAnswer(models.Model):
    """A person's first verdict on a gold item; later changes are not counted."""

    item = models.ForeignKey(GoldItem, on_delete=models.CASCADE, related_name="answers")
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="gold_answers"
    )
    # denormalised so that a person's last answers in a project are one index range
    project = models.ForeignKey("feedback.Project", on_delete=models.CASCADE, related_name="+")
    verdict = models.CharField(max_length=4)
    right = models.BooleanField()
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["item", "user"], name="one_gold_answer_per_person")
        ]
        indexes: ClassVar = [
            models.Index(fields=["project", "user", "-created_at"], name="gold_recent")
        ]

    def __str__(self) -> str:
        return f"{'right' if self.right else 'wrong'} on {self.item_id}"


class Pause(models.Model):
    """A person gave too many wrong gold answers and gets no items until an admin lifts it."""

    project = models.ForeignKey("feedback.Project", on_delete=models.CASCADE, related_name="pauses")
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="pauses"
    )
    right = models.PositiveSmallIntegerField()
    of = models.PositiveSmallIntegerField()
    # their last right gold answer: annotation votes since then are set aside
    since = models.DateTimeField(null=True)
    votes_set_aside = models.PositiveIntegerField(default=0)
    # [completion, created_at, used_in_run] of the removed examples, to restore them
    examples: Any = models.JSONField(default=list)
    created_at = models.DateTimeField(auto_now_add=True)
    lifted_at = models.DateTimeField(null=True)
    lifted_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    # whether the votes count again
    restored = models.BooleanField(default=False)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["project", "user"], condition=Q(lifted_at=None), name="one_pause_a_person"
            )
        ]

    def __str__(self) -> str:
        return f"{self.user_id}: {self.right} of {self.of}"
