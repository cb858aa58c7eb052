"""The annotation queue: who is shown what, and for how long it is theirs."""

import datetime as dt
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlencode

from django.db.models import Q
from django.utils import timezone

from feedback_app.accounts.models import User
from feedback_app.feedback.gold_queue import gold_slip
from feedback_app.feedback.models import Completion, Lease, Project, Skip
from feedback_app.feedback.querysets import CompletionQuerySet
from feedback_app.feedback.turns import transaction_in_turn

LEASE_MINUTES = 10
#: Rows of one transaction when a run's view of the completions is written down.
CHUNK = 500
#: What a page shows of an item.
SHOWN = ("project_id", "text", "finish_reason", "prompt__messages", "prompt__topic")


@dataclass(frozen=True)
class QueueView:
    """What part of the queue a person works through, and in which order. Empty: all of it."""

    order: str = ""
    version: str = ""
    source: str = ""
    topic: str = ""

    @property
    def narrowed(self) -> bool:
        return bool(self.version or self.source or self.topic)

    @property
    def query(self) -> str:
        """The state as it stands in an address, with its question mark; empty for the default."""
        state = {"order": self.order, **self.filters()}
        given = urlencode({name: value for name, value in state.items() if value})
        return f"?{given}" if given else ""

    def filters(self) -> dict[str, str]:
        chosen = {"version": self.version, "source": self.source, "topic": self.topic}
        return {name: value for name, value in chosen.items() if value}

    def of(self, project: Project) -> CompletionQuerySet:
        """The project's completions that this view is about, in no order."""
        return Completion.objects.filter(project=project, **self.filters())


EVERYTHING = QueueView()


def items_hand_out(
    *, project: Project, by: User, count: int = 2, view: QueueView = EVERYTHING
) -> list[Completion]:
    """Up to `count` items for this person, held under a lease: the one to show and the next.

    Items that the person already holds come first, so a reload shows the same one. On
    Postgres rows that another transaction is handing out are passed over; on SQLite the
    immediate transaction lets one person in at a time.
    """
    with transaction_in_turn():
        return items_take(project=project, by=by, count=count, view=view)


def items_take(
    *, project: Project, by: User, count: int = 2, view: QueueView = EVERYTHING
) -> list[Completion]:
    """What `items_hand_out` does, within the caller's transaction."""
    held = leases_held(project=project, by=by, count=count, view=view)
    held = gold_slip(
        held, view.of(project), project=project, by=by, count=count, minutes=LEASE_MINUTES
    )
    for part in view.of(project).in_queue_order(view.order or project.queue_order):
        while len(held) < count:
            # ids first: the rows are read once, below
            candidates = (
                part.open_for(by, overlap=project.overlap)
                .exclude(pk__in=held)
                .select_for_update(skip_locked=True, of=("self",))
                .values_list("pk", "vote_count")
            )
            found = list(candidates[: count - len(held)])
            if not found:
                break
            held += leases_take(found, project=project, by=by)
    rows = Completion.objects.select_related("prompt").only(*SHOWN).in_bulk(held)
    items = [rows[pk] for pk in held]
    for item in items:
        item.project = project
    return items


def leases_held(*, project: Project, by: User, count: int, view: QueueView) -> list[int]:
    """What the person holds already; a lease that is half over begins anew.

    A lease ends with the vote or the skip, so what is held is neither voted on nor passed by.
    """
    now = timezone.now()
    wanted = {"project": project, "flagged": False, **view.filters()}
    open_still = Q(completion__queued=True, completion__vote_count__lt=project.overlap)
    held = list(
        Lease.objects.filter(
            open_still | Q(completion__gold=True),
            user=by,
            expires_at__gt=now,
            **{f"completion__{name}": value for name, value in wanted.items()},
        )
        .order_by("-front", "expires_at", "pk")
        .values_list("completion_id", "expires_at")[:count]
    )
    fresh = dt.timedelta(minutes=LEASE_MINUTES)
    ids = [pk for pk, _ in held]
    if any(until < now + fresh / 2 for _, until in held):
        mine = Lease.objects.filter(user=by, completion__in=ids, expires_at__gt=now)
        mine.update(expires_at=now + fresh)
    return ids


def leases_take(found: list[tuple[int, int]], *, project: Project, by: User) -> list[int]:
    """Leases what is still open of (id, votes) that this transaction has locked, and returns it."""
    now = timezone.now()
    # asked again under the lock: leases may have come since the query began
    others = Counter(
        Lease.objects.filter(completion__in=[pk for pk, _ in found], expires_at__gt=now)
        .exclude(user=by)
        .values_list("completion_id", flat=True)
    )
    taken = [pk for pk, votes in found if votes + others[pk] < project.overlap]
    until = now + dt.timedelta(minutes=LEASE_MINUTES)
    Lease.objects.bulk_create(
        [Lease(completion_id=pk, user=by, expires_at=until) for pk in taken],
        # one of theirs may have run out
        update_conflicts=True,
        unique_fields=["completion", "user"],
        update_fields=["taken_at", "expires_at", "front"],
    )
    return taken


def slot_free(*, completion: Completion, by: User) -> bool:
    """Whether the item wants a vote of this person and nobody else holds its last slot."""
    mine = Completion.objects.filter(pk=completion.pk)
    return mine.open_for(by, overlap=completion.project.overlap).exists()


def lease_take(*, completion: Completion, by: User, front: bool = False) -> Lease:
    """Holds the item for `by` from now on; call it in a transaction that has locked the item."""
    lease, _ = Lease.objects.update_or_create(
        completion=completion,
        user=by,
        defaults={
            "taken_at": timezone.now(),
            "expires_at": timezone.now() + dt.timedelta(minutes=LEASE_MINUTES),
            "front": front,
        },
    )
    return lease


def lease_release(*, completion: Completion, by: User) -> bool:
    """The item is no longer on this person's screen; whether it was."""
    released, _ = Lease.objects.filter(completion=completion, user=by).delete()
    return released > 0


def item_skip(*, completion: Completion, by: User, flag: bool = False, reason: str = "") -> Skip:
    """Passes an item by; a flag takes it out of everyone's queue until someone looks."""
    with transaction_in_turn():
        skip, _ = Skip.objects.update_or_create(
            completion=completion, user=by, defaults={"flag": flag, "reason": reason[:200]}
        )
        if flag:
            Completion.objects.filter(pk=completion.pk).update(flagged=True)
        lease_release(completion=completion, by=by)
    return skip


def completions_doubt(*, project: Project, fit: Mapping[int, tuple[float, float]]) -> None:
    """Writes down how unsure a finished run is of each completion, for the order 'unsure'.

    `fit` maps completion ids to (reward, z₀) in nats. What an earlier run told is forgotten.
    """
    known = Completion.objects.filter(project=project, unsure__isnull=False)
    old = [pk for pk in known.values_list("pk", flat=True) if pk not in fit]
    for chunk in batched(old, CHUNK):
        Completion.objects.filter(pk__in=chunk).update(unsure=None)
    for chunk in batched(sorted(fit), CHUNK):
        rows = list(Completion.objects.filter(project=project, pk__in=chunk).only("pk"))
        for row in rows:
            reward, point = fit[row.pk]
            row.unsure = abs(reward - point)
        Completion.objects.bulk_update(rows, ["unsure"])


def batched(ids: list[int], size: int) -> Iterator[list[int]]:
    """The ids in runs of `size`."""
    return (ids[start : start + size] for start in range(0, len(ids), size))
