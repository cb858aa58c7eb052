"""The annotation queue: who is shown what, and for how long it is theirs."""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any
from urllib.parse import urlencode

from django.db import connection
from django.db.models import OuterRef, Q, QuerySet, Subquery
from django.utils import timezone

from feedback_app.accounts.models import User
from feedback_app.db.batches import batched
from feedback_app.db.prepared import Prepared, run
from feedback_app.db.write_lock import write_transaction
from feedback_app.feedback.gold.insertion import gold_insert
from feedback_app.feedback.models import (
    Completion,
    CompletionQuerySet,
    Lease,
    Project,
    Prompt,
    Skip,
)
from feedback_app.feedback.models.queue import parts_of

LEASE_MINUTES = 10
#: Rows of one transaction when a run's view of the completions is written down.
CHUNK = 500
#: What a page shows of an item, and of its prompt.
SHOWN_ITSELF = ("project_id", "prompt_id", "text", "finish_reason", "vote_count")
SHOWN_PROMPT = ("messages", "topic")
SHOWN = (*SHOWN_ITSELF, *(f"prompt__{name}" for name in SHOWN_PROMPT))


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

    @cached_property
    def query(self) -> str:
        """The state as it stands in an address, with its question mark; empty for the default."""
        state = {"order": self.order, **self.filters()}
        given = urlencode({name: value for name, value in state.items() if value})
        return f"?{given}" if given else ""

    def filters(self) -> dict[str, str]:
        chosen = {"version": self.version, "source": self.source, "topic": self.topic}
        return {name: value for name, value in chosen.items() if value}

    def order_in(self, project: Project) -> str:
        """The order that is read. Within one version none is newer, so what is left of 'newest' is
        the balanced order, and there is an index for it."""
        order = self.order or project.queue_order
        return "balanced" if order == "newest" and self.version else order

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
    with write_transaction():
        return items_take(project=project, by=by, count=count, view=view)


def items_take(
    *, project: Project, by: User, count: int = 2, view: QueueView = EVERYTHING
) -> list[Completion]:
    """What `items_hand_out` does, within the caller's transaction."""
    items = items_held(project=project, by=by, count=count, view=view)
    gold = gold_insert(
        [item.pk for item in items],
        partial(view.of, project),
        project=project,
        by=by,
        count=count,
        minutes=LEASE_MINUTES,
    )
    if gold is not None:
        items.append(Completion.objects.select_related("prompt").only(*SHOWN).get(pk=gold))
    order = view.order_in(project)
    for part in range(parts_of(order)):
        while len(items) < count:
            found = OPEN.rows(
                order,
                part,
                project.overlap,
                count - len(items),
                project=project.pk,
                user=by.pk,
                now=timezone.now(),
                **view.filters(),
            )
            if not found:
                break
            items += map(with_prompt, leases_take(found, project=project, by=by))
    for item in items:
        item.project = project
    return items


def with_prompt(item: Completion) -> Completion:
    """An item of `opened`, its prompt with what is shown of it."""
    shown = [getattr(item, f"prompt_{name}") for name in SHOWN_PROMPT]
    item.prompt = Prompt.from_db(connection.alias, ["id", *SHOWN_PROMPT], [item.prompt_id, *shown])
    return item


def held(
    count: int, overlap: int, *, project: Any, user: Any, now: Any, **filters: Any
) -> QuerySet[Lease]:
    """The queryset of `items_held`."""
    wanted = {"project": project, "flagged": False, **filters}
    open_still = Q(completion__queued=True, completion__vote_count__lt=overlap)
    return (
        Lease.objects.filter(open_still | Q(completion__gold=True), user=user, expires_at__gt=now)
        .filter(**{f"completion__{name}": value for name, value in wanted.items()})
        .select_related("completion__prompt")
        .only("expires_at", *(f"completion__{name}" for name in SHOWN))
        .order_by("-front", "expires_at", "pk")[:count]
    )


HELD = Prepared(held)


def items_held(*, project: Project, by: User, count: int, view: QueueView) -> list[Completion]:
    """What the person holds already; a lease that is half over begins anew.

    A lease ends with the vote or the skip, so what is held is neither voted on nor passed by.
    """
    now = timezone.now()
    leases = HELD.rows(
        count, project.overlap, project=project.pk, user=by.pk, now=now, **view.filters()
    )
    fresh = dt.timedelta(minutes=LEASE_MINUTES)
    if any(lease.expires_at < now + fresh / 2 for lease in leases):
        mine = Lease.objects.filter(pk__in=[lease.pk for lease in leases], expires_at__gt=now)
        mine.update(expires_at=now + fresh)
    return [lease.completion for lease in leases]


def opened(
    order: str,
    part: int,
    overlap: int,
    count: int,
    *,
    project: Any,
    user: Any,
    now: Any,
    **filters: Any,
) -> QuerySet[Completion]:
    """What may be handed out next, its rows held; one part of the order.

    What is shown of the prompts is looked up for the rows found. For a join PostgreSQL lays out a
    table of all prompts that the queue may come to, at every execution.
    """
    parts = Completion.objects.filter(project=project, **filters).in_queue_order(order)
    prompt = Prompt.objects.filter(pk=OuterRef("prompt"))
    return (
        parts[part]
        .to_hand_out(user, overlap=overlap, now=now)
        .annotate(**{f"prompt_{name}": Subquery(prompt.values(name)) for name in SHOWN_PROMPT})
        .only(*SHOWN_ITSELF)
        .select_for_update(skip_locked=True, of=("self",))[:count]
    )


OPEN = Prepared(opened)


def leases_take(found: list[Completion], *, project: Project, by: User) -> list[Completion]:
    """Leases what is still open of the rows that this transaction has locked, and returns it."""
    now = timezone.now()
    until = now + dt.timedelta(minutes=LEASE_MINUTES)
    leases = connection.ops.quote_name(Lease._meta.db_table)
    # asked again under the lock: leases may have come since the query began; one of theirs may
    # have run out
    sql = f"""
        INSERT INTO {leases} (completion_id, user_id, taken_at, expires_at, front)
        SELECT %s, %s, %s, %s, %s WHERE %s + (
            SELECT COUNT(*) FROM {leases}
            WHERE completion_id = %s AND expires_at > %s AND user_id <> %s
        ) < %s
        ON CONFLICT (completion_id, user_id) DO UPDATE SET
            taken_at = EXCLUDED.taken_at, expires_at = EXCLUDED.expires_at, front = EXCLUDED.front
        RETURNING completion_id
    """  # noqa: S608
    taken = []
    for item in found:
        lease = [item.pk, by.pk, now, until, False]
        others = [item.vote_count, item.pk, now, by.pk]
        if run(sql, [*lease, *others, project.overlap]):
            taken.append(item)
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
    with write_transaction():
        skip, _ = Skip.objects.update_or_create(
            completion=completion, user=by, defaults={"flag": flag, "reason": reason[:200]}
        )
        if flag:
            Completion.objects.filter(pk=completion.pk).update(flagged=True)
        lease_release(completion=completion, by=by)
    return skip


def uncertainty_store(*, project: Project, fit: Mapping[int, tuple[float, float]]) -> None:
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
