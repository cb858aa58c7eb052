"""Reads of gold items, answers to them and pauses."""

import datetime as dt

from django.db.models import QuerySet
from django.utils import timezone

from feedback_app.accounts.models import User
from feedback_app.db.bounded_count import counted_of
from feedback_app.feedback.models import GoldAnswer, GoldItem, Pause, Project, Vote
from feedback_app.feedback.models.rules import GoldFeedback

#: Gold answers shown when the queue is empty.
SHOWN = 20


def gold_at_once(*, project: Project, vote: Vote) -> str:
    """Return the message after a verdict on a gold item; empty for all other verdicts."""
    if project.gold_feedback != GoldFeedback.AT_ONCE or not vote.completion.gold:
        return ""
    item = GoldItem.objects.get(completion=vote.completion_id)
    if vote.verdict == item.verdict:
        return "This was a gold item, and your verdict was right."
    why = f": {item.why}" if item.why else "."
    return f"This was a gold item: the right verdict is {item.verdict}{why}"


def gold_results(*, project: Project, user: User) -> list[GoldAnswer]:
    """Return the person's gold answers of the last day, wrong ones first.

    Empty unless the project shows them when the queue is empty.
    """
    if not project.gold_every or project.gold_feedback != GoldFeedback.AFTER:
        return []
    since = timezone.now() - dt.timedelta(days=1)
    answers = GoldAnswer.objects.filter(project=project, user=user, created_at__gte=since)
    shown = answers.select_related("item__completion__prompt").defer(
        "item__completion__token_ids", "item__completion__prompt_token_ids"
    )
    return list(shown.order_by("right", "-created_at", "-pk")[:SHOWN])


def gold_items(project: Project) -> QuerySet[GoldItem]:
    """Return the project's gold items, newest first, with their numbers of answers."""
    of_item = ("item_id", "completion_id")
    return (
        project.gold_items.select_related("completion__prompt", "by")
        .defer("completion__token_ids", "completion__prompt_token_ids")
        .annotate(
            judged=counted_of(GoldItem, GoldAnswer, on=of_item),
            # "right" is a word of SQL
            rightly=counted_of(GoldItem, GoldAnswer, '"right"', on=of_item),
        )
        .order_by("-created_at", "-pk")
    )


def pauses_open(project: Project) -> QuerySet[Pause]:
    """Return the pauses in effect, newest first."""
    return project.pauses.filter(lifted_at=None).select_related("user").order_by("-pk")


def pauses_unrestored(project: Project) -> QuerySet[Pause]:
    """Return lifted pauses whose votes are still set aside, newest first."""
    over = project.pauses.filter(lifted_at__isnull=False, restored=False, votes_set_aside__gt=0)
    return over.select_related("user", "lifted_by").order_by("-lifted_at")
