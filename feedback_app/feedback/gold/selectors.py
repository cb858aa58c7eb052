"""What annotators and admins are told about gold items."""

import datetime as dt

from django.db.models import Count, Q, QuerySet
from django.utils import timezone

from feedback_app.accounts.models import User
from feedback_app.feedback.models import GoldAnswer, GoldItem, Pause, Project, Vote
from feedback_app.feedback.models.rules import GoldFeedback

#: Wrong verdicts that an annotator is shown after the work.
TOLD = 20


def gold_at_once(*, project: Project, vote: Vote) -> str:
    """What a person is told right after a verdict on a gold item; empty for all other verdicts."""
    if project.gold_feedback != GoldFeedback.AT_ONCE or not vote.completion.gold:
        return ""
    item = GoldItem.objects.get(completion=vote.completion_id)
    if vote.verdict == item.verdict:
        return "That one was known, and you judged it rightly."
    why = f": {item.why}" if item.why else "."
    return f"That one was known: it is {'an up' if item.verdict == 'up' else 'a down'}{why}"


def gold_told(*, project: Project, user: User) -> list[GoldAnswer]:
    """The gold items that a person judged within a day, once the work is done, if the project
    says so; the wrong ones first."""
    if not project.gold_every or project.gold_feedback != GoldFeedback.AFTER:
        return []
    since = timezone.now() - dt.timedelta(days=1)
    answers = GoldAnswer.objects.filter(project=project, user=user, created_at__gte=since)
    shown = answers.select_related("item__completion__prompt").defer(
        "item__completion__token_ids", "item__completion__prompt_token_ids"
    )
    return list(shown.order_by("right", "-created_at", "-pk")[:TOLD])


def gold_items(project: Project) -> QuerySet[GoldItem]:
    """The project's gold, newest first, each with how many judged it and how many rightly."""
    return (
        project.gold_items.select_related("completion__prompt", "by")
        .defer("completion__token_ids", "completion__prompt_token_ids")
        .annotate(judged=Count("answers"), rightly=Count("answers", filter=Q(answers__right=True)))
        .order_by("-created_at", "-pk")
    )


def pauses_open(project: Project) -> QuerySet[Pause]:
    """Who is paused now, the latest first."""
    return project.pauses.filter(lifted_at=None).select_related("user").order_by("-pk")


def pauses_unrestored(project: Project) -> QuerySet[Pause]:
    """Pauses that are over but whose votes are still set aside, the latest first."""
    over = project.pauses.filter(lifted_at__isnull=False, restored=False, votes_set_aside__gt=0)
    return over.select_related("user", "lifted_by").order_by("-lifted_at")
