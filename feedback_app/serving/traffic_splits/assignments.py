"""Assignments: which version answers as `live` while traffic is split, and how it went.

A conversation gets its assignment with its first answer and keeps it while the split runs, also
when the percentage changes. A conversation that began before the split stays with the live version.
"""

import hashlib
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass

from django.db.models import Q
from django.urls import reverse
from django.utils import timezone

from feedback_app.accounts.audit import audit
from feedback_app.accounts.models import User
from feedback_app.feedback.models import Completion, NotificationKind, Project
from feedback_app.feedback.notifications.services import notify
from feedback_app.feedback.prompts.services import Message
from feedback_app.serving.engine.client import EngineError
from feedback_app.serving.models import Assignment, AssignmentAnswer, Conversation, TrafficSplit

RUNNING = TrafficSplit.Status.RUNNING


def conversation_key(conversation: Conversation) -> str:
    return f"chat:{conversation.pk.hex}"


def request_key(project: Project, *, user: str | None, messages: list[Message]) -> str:
    """Return the assignment key of a gateway request: from the product's user if it names one, else
    from the first message, which all turns of a conversation share."""
    kind, said = ("user", user) if user else ("said", messages[0]["content"])
    digest = hashlib.sha256(f"{project.pk} {said}".encode(errors="replace")).hexdigest()
    return f"{kind}:{digest}"


def assignment_find(key: str) -> Assignment | None:
    """Return the key's assignment in a running split, or None."""
    assignments = Assignment.objects.select_related("split__candidate").filter(key=key)
    return assignments.filter(split__status=RUNNING, split__candidate__discarded_at=None).first()


def assignment_get_or_draw(project: Project, key: str, *, begins: bool) -> Assignment | None:
    """Return the key's assignment, or None; draw it if the conversation begins now."""
    splits = project.traffic_splits.select_related("candidate")
    split = splits.filter(status=RUNNING, candidate__discarded_at=None).first()
    if split is None:
        return None
    assignment = Assignment.objects.filter(split=split, key=key).first()
    if assignment is None and begins:
        assignment, _ = Assignment.objects.get_or_create(
            split=split,
            key=key,
            defaults={
                "candidate": secrets.randbelow(100) < split.percent,
                "percent": split.percent,
            },
        )
    if assignment is not None:
        assignment.split = split
    return assignment


def conversation_assignment(conversation: Conversation, *, begins: bool) -> Assignment | None:
    """Return the assignment of a conversation with `live`, drawn with its first answer."""
    if conversation.choice != Conversation.LIVE:
        return None
    return assignment_get_or_draw(
        conversation.project, conversation_key(conversation), begins=begins
    )


@dataclass
class Clock:
    """Times of an answer, in seconds of the monotonic clock; `first` is relative to `begun`."""

    begun: float
    first: float | None = None


def timed(
    pieces: Iterator[str],
    *,
    assignment: Assignment | None,
    completion: Callable[[], Completion | None],
) -> Iterator[str]:
    """Yield the pieces and record times and end; `completion` returns the stored answer."""
    if assignment is None:
        yield from pieces
        return
    clock = Clock(time.monotonic())
    end = AssignmentAnswer.End.LEFT
    try:
        with closing(pieces):  # type: ignore[type-var]
            for piece in pieces:
                if piece and clock.first is None:
                    clock.first = time.monotonic() - clock.begun
                yield piece
        end = AssignmentAnswer.End.WHOLE
    except EngineError:
        end = AssignmentAnswer.End.FAILED
        raise
    finally:
        assignment_answer_store(assignment, end=end, clock=clock, completion=completion())


def assignment_answer_store(
    assignment: Assignment,
    *,
    end: AssignmentAnswer.End,
    clock: Clock,
    completion: Completion | None,
) -> None:
    """Store how an answer went, unless another version than the assigned one answered."""
    if completion is not None and completion.version != assignment.version:
        return
    if end == AssignmentAnswer.End.WHOLE and completion is not None:
        broken = completion.finish_reason == Completion.Finish.ABORTED
        end = AssignmentAnswer.End.LEFT if broken else end
    AssignmentAnswer.objects.create(
        assignment=assignment,
        completion=completion,
        end=end,
        first_seconds=clock.first,
        seconds=time.monotonic() - clock.begun,
        words=len(completion.text.split()) if completion is not None else 0,
    )


def split_close(
    *, project: Project, status: TrafficSplit.Status, by: User | None, reason: str
) -> TrafficSplit | None:
    """End the running split, if there is one; its conversations continue with the live version.

    Call it in the transaction of the change that ends it.
    """
    split = project.traffic_splits.select_related("candidate").filter(status=RUNNING).first()
    if split is None:
        return None
    ended = TrafficSplit.objects.filter(pk=split.pk, status=RUNNING).update(
        status=status, reason=reason[:200], ended_at=timezone.now()
    )
    if not ended:
        return None  # another process ended it first
    audit(project=project, actor=by, action=f"split.{status}", target=str(split), reason=reason)
    if by is None:
        notify(
            project=project,
            kind=NotificationKind.SPLIT_DECIDED,
            key=str(split.pk),
            text=f"{split} has ended. {reason}".strip(),
            path=reverse("releases", args=[project.slug]),
        )
    return split


def split_after_release(
    *, project: Project, version: str, by: User | None, reason: str
) -> TrafficSplit | None:
    """End a running split at a release: promoted if its candidate was released, else stopped."""
    promoted = Q(candidate__name=version)
    won = project.traffic_splits.filter(promoted, status=RUNNING).exists()
    if won:
        return split_close(
            project=project,
            status=TrafficSplit.Status.PROMOTED,
            by=by,
            reason=reason or f"{version} was released.",
        )
    return split_close(
        project=project,
        status=TrafficSplit.Status.STOPPED,
        by=by,
        reason=f"{version} was released meanwhile.",
    )
