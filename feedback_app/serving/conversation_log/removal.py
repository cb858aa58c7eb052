"""Removing conversations: by their owner, and after the days that a project keeps them.

What was judged, or is used otherwise, stays: an example and the version that learned from it cannot
be explained without its question and answer. Such a turn keeps its conversation, which nobody sees
any more, so that the erasure of the person still finds what they wrote.
"""

import datetime as dt
import uuid
from collections.abc import Iterable

from django.db import transaction
from django.db.models import Exists, OuterRef, QuerySet
from django.utils import timezone

from feedback_app.feedback.models import (
    Adjudication,
    Completion,
    Correction,
    Example,
    FollowUp,
    Probe,
    Project,
    Prompt,
    Source,
)
from feedback_app.serving.models import AssignmentAnswer, Conversation, FixedPrompt, Turn
from feedback_app.training.forgetting.gate_reports import questions_forget
from feedback_app.training.models import BlindPair, SnapshotItem

#: Conversations that one transaction removes.
BATCH = 100
#: Batches of one task; the next one goes on.
BATCHES = 20
SAID = (Source.DEMO, Source.API)


def conversations_remove(pks: Iterable[uuid.UUID]) -> int:
    """Remove conversations with their unused questions and answers; return their number.

    Those that are removed already are not counted.
    """
    pks = list(pks)
    projects = Conversation.objects.filter(pk__in=pks).values("project")
    with transaction.atomic():
        # a snapshot that is being taken has an answer, which is then used, or is taken again
        list(Project.objects.select_for_update(no_key=True).filter(pk__in=projects).order_by("pk"))
        rows = Conversation.objects.select_for_update().kept().filter(pk__in=pks)
        removed = set(rows.order_by("pk").values_list("pk", flat=True))
        turns = Turn.objects.filter(conversation__in=removed)
        answers = set(turns.exclude(completion=None).values_list("completion_id", flat=True))
        unused = answers_unused(answers)
        used = turns.filter(completion__in=answers - unused)
        kept = set(used.values_list("conversation_id", flat=True))
        FollowUp.objects.filter(completion__in=answers).delete()
        # turns are deleted with their parents, and these have to stay
        turns.update(parent=None, position=None)
        turns.exclude(completion__in=answers - unused).delete()
        answers_delete(unused)
        Conversation.objects.filter(pk__in=kept).update(
            title="", system_prompt=None, removed_at=timezone.now()
        )
        Conversation.objects.filter(pk__in=removed - kept).delete()
    return len(removed)


def answers_unused(answers: Iterable[int]) -> set[int]:
    """Return those of the answers that nobody has judged, queued or used otherwise."""
    uses = (
        Example.objects.filter(completion=OuterRef("pk")),
        SnapshotItem.objects.filter(completion=OuterRef("pk")),
        Probe.objects.filter(completion=OuterRef("pk")),
        Adjudication.objects.filter(completion=OuterRef("pk")),
        # also a withdrawn one: by it the text is found when its writer is erased
        Correction.objects.filter(original=OuterRef("pk")),
    )
    unused = Completion.objects.filter(
        pk__in=list(answers),
        source__in=SAID,
        vote_count=0,
        queued=False,
        gold=False,
        flagged=False,
    )
    for use in uses:
        unused = unused.exclude(Exists(use))
    return set(unused.values_list("pk", flat=True))


def answers_delete(answers: Iterable[int]) -> None:
    """Delete answers, and the questions that have no other answer."""
    answers = list(answers)
    rows = Completion.objects.filter(pk__in=answers)
    prompts = set(rows.values_list("prompt_id", flat=True))
    # what a traffic split measured stays
    AssignmentAnswer.objects.filter(completion__in=answers).update(completion=None)
    rows.delete()
    uses = (Completion.objects, FixedPrompt.objects, BlindPair.objects)
    unasked = Prompt.objects.filter(pk__in=prompts, source__in=SAID)
    for use in uses:
        unasked = unasked.exclude(Exists(use.filter(prompt=OuterRef("pk"))))
    questions_forget(list(unasked.values_list("pk", flat=True)))
    unasked.delete()


def conversations_past(project: Project) -> QuerySet[Conversation]:
    """Return the conversations that are older than the project keeps them."""
    rows = Conversation.objects.kept().filter(project=project)
    if project.conversation_days is None:
        return rows.none()
    oldest = timezone.now() - dt.timedelta(days=project.conversation_days)
    return rows.filter(updated_at__lt=oldest)


def projects_past() -> list[int]:
    """Return the ids of projects with conversations to remove."""
    limited = Project.objects.filter(conversation_days__isnull=False).order_by("pk")
    return [project.pk for project in limited if conversations_past(project).exists()]


def conversations_expire(project_id: int) -> int:
    """Remove a project's old conversations, at most BATCHES times BATCH; return their number."""
    project = Project.objects.filter(pk=project_id).first()
    number = 0
    for _ in range(BATCHES):
        if project is None:
            break
        oldest = conversations_past(project).order_by("updated_at").values_list("pk", flat=True)
        pks = list(oldest[:BATCH])
        number += conversations_remove(pks)
        if len(pks) < BATCH:
            break
    return number
