"""Gold: answers whose right verdict is known, how people did on them, and who is paused."""

from typing import Any, ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Q


class CompletionMarks(models.Model):
    """The fields of a Completion that people who look after the votes set."""

    # the right verdict, where somebody decided it: its example, whatever the votes say
    decided = models.CharField(max_length=4, blank=True)
    # handed out to see whether people judge it rightly; a GoldItem has the particulars
    gold = models.BooleanField(default=False)

    class Meta:
        abstract = True


class VoteMarks(models.Model):
    """What a Vote is marked with besides what the person said."""

    # given faster than the answer can be read
    hasty = models.BooleanField(default=False)
    # stands for nothing as long as it is set; no index: it is asked for by person only
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
    """A completion that is gold, and why its verdict is right."""

    completion = models.OneToOneField(
        "feedback.Completion", on_delete=models.CASCADE, related_name="gold_item", primary_key=True
    )
    project = models.ForeignKey(
        "feedback.Project", on_delete=models.CASCADE, related_name="gold_items"
    )
    verdict = models.CharField(max_length=4, choices=[("up", "Up"), ("down", "Down")])
    # shown to those who judged it otherwise
    why = models.CharField(max_length=500, blank=True)
    by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    # whether it goes back into the queue when it is gold no more
    was_queued = models.BooleanField()
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"{self.verdict} for {self.completion_id}"


class GoldAnswer(models.Model):
    """A person's first verdict on a gold item; what they change later is not counted."""

    item = models.ForeignKey(GoldItem, on_delete=models.CASCADE, related_name="answers")
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="gold_answers"
    )
    # on the row so that 'their last ten in this project' is one index range
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
    """A person judged too many gold items wrongly: no more items until an admin lifts it."""

    project = models.ForeignKey("feedback.Project", on_delete=models.CASCADE, related_name="pauses")
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="pauses"
    )
    right = models.PositiveSmallIntegerField()
    of = models.PositiveSmallIntegerField()
    # their last right verdict on a gold item: what they voted at the desk since is set aside
    since = models.DateTimeField(null=True)
    votes_set_aside = models.PositiveIntegerField(default=0)
    # [completion, created_at, used_in_run] of examples that went with the votes, to bring them
    # back as they were
    examples: Any = models.JSONField(default=list)
    created_at = models.DateTimeField(auto_now_add=True)
    lifted_at = models.DateTimeField(null=True)
    lifted_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    # whether the votes came back with the lifting
    restored = models.BooleanField(default=False)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["project", "user"], condition=Q(lifted_at=None), name="one_pause_a_person"
            )
        ]

    def __str__(self) -> str:
        return f"{self.user_id}: {self.right} of {self.of}"
