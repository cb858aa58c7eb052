"""Answers to gold items, and pausing people who give too many wrong ones."""

from functools import partial

from django.db import IntegrityError, transaction
from django.utils import timezone

from feedback_app.accounts.audit import audit, person_name
from feedback_app.accounts.models import User
from feedback_app.db.batches import batched
from feedback_app.feedback.examples.services import (
    CHUNK,
    completions_lock,
    examples_refresh,
    examples_restore,
)
from feedback_app.feedback.models import GoldAnswer, Lease, Pause, Project, Source, Vote
from feedback_app.web.errors import UserError


def gold_answer_record(vote: Vote) -> None:
    """Record a person's first verdict on a gold item. Call it in the vote's transaction."""
    _, first = GoldAnswer.objects.get_or_create(
        item_id=vote.completion_id,
        user=vote.user,
        defaults={
            "project_id": vote.project_id,
            "verdict": vote.verdict,
            "right": vote.verdict == vote.completion.decided,
        },
    )
    if first:
        # a separate transaction: it locks other completions than the vote
        transaction.on_commit(partial(pause_if_due, project_id=vote.project_id, user=vote.user))


def pause_if_due(*, project_id: int, user: User) -> Pause | None:
    """Pause a person whose accuracy on their last gold items is too low.

    Their votes at the annotation page since their last right answer are set aside.
    """
    project = Project.objects.get(pk=project_id)
    theirs = GoldAnswer.objects.filter(project=project, user=user)
    lifted = Pause.objects.filter(project=project, user=user, lifted_at__isnull=False)
    last = lifted.order_by("-lifted_at").first()
    # only answers since the last pause count
    fresh = theirs.filter(created_at__gt=last.lifted_at) if last else theirs
    window = list(fresh.order_by("-created_at", "-pk")[: project.gold_window])
    right = sum(answer.right for answer in window)
    if len(window) < project.gold_window or 100 * right >= project.gold_least * len(window):
        return None
    good = theirs.filter(right=True).order_by("-created_at", "-pk").first()
    try:
        with transaction.atomic():
            pause = Pause.objects.create(
                project=project,
                user=user,
                right=right,
                of=len(window),
                since=good.created_at if good else None,
            )
            votes_set_aside(pause)
            Lease.objects.filter(user=user, completion__project=project).delete()
            audit(project=project, actor=None, action="pause.begin", target=person_name(user))
    except IntegrityError:
        return None  # paused already
    return pause


def votes_set_aside(pause: Pause) -> None:
    """Exclude the person's annotation votes since their last right gold answer from examples."""
    doubtful = Vote.objects.standing().filter(
        project=pause.project, user=pause.user, source=Source.ANNOTATE
    )
    if pause.since is not None:
        doubtful = doubtful.filter(created_at__gt=pause.since)
    found = dict(doubtful.values_list("pk", "completion_id"))
    completions = list(found.values())
    completions_lock(completions)
    # these alone: of a vote that another request casts meanwhile the example would stay
    for chunk in batched(list(found), CHUNK):
        votes = Vote.objects.standing().filter(pk__in=chunk)
        pause.votes_set_aside += votes.update(set_aside=pause)
    pause.examples = examples_refresh(completions)
    pause.save(update_fields=["votes_set_aside", "examples"])


def pause_lift(*, pause: Pause, by: User, restore: bool) -> int:
    """End a pause; return how many votes count again.

    With `restore`, votes that were set aside count again and their examples are as they were;
    otherwise they stay set aside. Raise UserError if the pause has been lifted already.
    """
    with transaction.atomic():
        changed = Pause.objects.filter(pk=pause.pk, lifted_at=None).update(
            lifted_at=timezone.now(), lifted_by=by
        )
        if not changed:
            raise UserError("This pause has already been lifted.")
        target = person_name(pause.user)
        audit(project=pause.project, actor=by, action="pause.lift", target=target)
        return votes_restore(pause=pause, by=by) if restore else 0


def votes_restore(*, pause: Pause, by: User) -> int:
    """Undo `votes_set_aside`; return how many votes count again."""
    with transaction.atomic():
        theirs = Vote.objects.filter(project=pause.project, user=pause.user, set_aside=pause)
        completions = list(theirs.values_list("completion_id", flat=True))
        completions_lock(completions)
        restored = theirs.update(set_aside=None)
        examples_refresh(completions)
        examples_restore(pause.examples)
        Pause.objects.filter(pk=pause.pk).update(restored=True, examples=[])
        target = f"{restored} of {person_name(pause.user)}"
        audit(project=pause.project, actor=by, action="votes.restore", target=target)
    return restored
