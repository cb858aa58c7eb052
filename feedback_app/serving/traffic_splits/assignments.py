"""Which version answers as `live` while traffic is split, and what came of its answers.

A conversation gets its seat with its first answer and keeps it while the split runs: another
percentage moves nobody. One that began before the split stays with what is live.
"""

import hashlib
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass

from django.db.models import Q
from django.utils import timezone

from feedback_app.accounts.audit import audit
from feedback_app.accounts.models import User
from feedback_app.db.prepared import Prepared
from feedback_app.feedback.models import Completion, Project
from feedback_app.feedback.prompts.services import Message
from feedback_app.serving.engine.client import EngineError
from feedback_app.serving.models import Conversation, Seat, SeatAnswer, TrafficSplit

RUNNING = TrafficSplit.Status.RUNNING
#: The running split of a project, of which there is one at most.
SPLIT = Prepared[TrafficSplit](
    lambda **values: TrafficSplit.objects.select_related("candidate").filter(
        **values, status=RUNNING, candidate__discarded_at=None
    )
)


def conversation_key(conversation: Conversation) -> str:
    return f"chat:{conversation.pk.hex}"


def request_key(project: Project, *, user: str | None, messages: list[Message]) -> str:
    """The seat of a request of the gateway: the product's user if it names one, else the first
    question, which all turns of a conversation share."""
    kind, said = ("user", user) if user else ("said", messages[0]["content"])
    digest = hashlib.sha256(f"{project.pk} {said}".encode(errors="replace")).hexdigest()
    return f"{kind}:{digest}"


def seat_find(key: str) -> Seat | None:
    """The seat in a running split, if this key has one."""
    seats = Seat.objects.select_related("split__candidate")
    return seats.filter(key=key, split__status=RUNNING, split__candidate__discarded_at=None).first()


def seat_take(project: Project, key: str, *, begins: bool) -> Seat | None:
    """The seat of this key; drawn now if its conversation begins under a running split."""
    split = SPLIT.first(project=project.pk)
    if split is None:
        return None
    seat = Seat.objects.filter(split=split, key=key).first()
    if seat is None and begins:
        seat, _ = Seat.objects.get_or_create(
            split=split,
            key=key,
            defaults={
                "candidate": secrets.randbelow(100) < split.percent,
                "percent": split.percent,
            },
        )
    if seat is not None:
        seat.split = split
    return seat


def conversation_seat(conversation: Conversation, *, begins: bool) -> Seat | None:
    """The seat of a conversation that asks for `live`, taken with its first answer."""
    if conversation.choice != Conversation.LIVE:
        return None
    return seat_take(conversation.project, conversation_key(conversation), begins=begins)


@dataclass
class Clock:
    """How long an answer took so far, in seconds."""

    begun: float
    first: float | None = None


def watched(
    pieces: Iterator[str], *, seat: Seat | None, completion: Callable[[], Completion | None]
) -> Iterator[str]:
    """Passes an answer on and writes down how it went; `completion` is what was kept of it."""
    if seat is None:
        yield from pieces
        return
    clock = Clock(time.monotonic())
    end = SeatAnswer.End.LEFT
    try:
        with closing(pieces):  # type: ignore[type-var]
            for piece in pieces:
                if piece and clock.first is None:
                    clock.first = time.monotonic() - clock.begun
                yield piece
        end = SeatAnswer.End.WHOLE
    except EngineError:
        end = SeatAnswer.End.FAILED
        raise
    finally:
        answer_note(seat, end=end, clock=clock, completion=completion())


def answer_note(
    seat: Seat, *, end: SeatAnswer.End, clock: Clock, completion: Completion | None
) -> None:
    """Keeps how an answer went, unless it is not the seat's version that gave it."""
    if completion is not None and completion.version != seat.version:
        return
    if end == SeatAnswer.End.WHOLE and completion is not None:
        broken = completion.finish_reason == Completion.Finish.ABORTED
        end = SeatAnswer.End.LEFT if broken else end
    SeatAnswer.objects.create(
        seat=seat,
        completion=completion,
        end=end,
        first_seconds=clock.first,
        seconds=time.monotonic() - clock.begun,
        words=len(completion.text.split()) if completion is not None else 0,
    )


def split_close(
    *, project: Project, status: TrafficSplit.Status, by: User | None, reason: str
) -> TrafficSplit | None:
    """Ends the running split, if there is one; its conversations go on with what is live.

    Call it in the transaction of what ends it.
    """
    split = project.traffic_splits.select_related("candidate").filter(status=RUNNING).first()
    if split is None:
        return None
    ended = TrafficSplit.objects.filter(pk=split.pk, status=RUNNING).update(
        status=status, reason=reason[:200], ended_at=timezone.now()
    )
    if not ended:
        return None  # somebody else was first
    audit(project=project, actor=by, action=f"split.{status}", target=str(split), reason=reason)
    return split


def split_after_release(
    *, project: Project, version: str, by: User | None, reason: str
) -> TrafficSplit | None:
    """What a release does to a running split: its candidate has won, or lost its opponent."""
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
