"""The annotation queue: which items a person gets, and how long they are reserved."""

import datetime as dt
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any
from urllib.parse import urlencode

from django.db import connection
from django.db.models import Exists, F, OuterRef, Q, QuerySet, Subquery
from django.utils import timezone

from feedback_app.accounts.models import User
from feedback_app.db.batches import batched
from feedback_app.db.prepared import Prepared, run
from feedback_app.db.write_lock import write_transaction
from feedback_app.feedback.gold.insertion import gold_insert, gold_renew
from feedback_app.feedback.models import (
    Completion,
    CompletionQuerySet,
    Lease,
    Project,
    Prompt,
    Skip,
    Vote,
)
from feedback_app.feedback.models.queue import parts_of

LEASE_MINUTES = 10
#: How long a skip or flag can be undone. The item stays reserved for that long: if others got it at
#: once, a gold item would be the only one that an undo always brings back.
UNDO_SKIP = dt.timedelta(seconds=60)
#: Skips that are undone, or counted, at once.
SKIPS_UNDONE = 500
#: Rows per transaction when uncertainties are stored.
CHUNK = 500
#: Columns of an item, and of its prompt, that a page shows.
SHOWN_ITSELF = ("project_id", "prompt_id", "text", "finish_reason", "vote_count")
SHOWN_PROMPT = ("messages", "topic")
SHOWN = (*SHOWN_ITSELF, *(f"prompt__{name}" for name in SHOWN_PROMPT))


@dataclass(frozen=True)
class QueueView:
    """A filter and order of the queue. Empty: no restriction, the project's order."""

    order: str = ""
    version: str = ""
    source: str = ""
    topic: str = ""

    @property
    def narrowed(self) -> bool:
        return bool(self.version or self.source or self.topic)

    @cached_property
    def query(self) -> str:
        """The state as a query string with its question mark; empty for the default."""
        state = {"order": self.order, **self.filters()}
        given = urlencode({name: value for name, value in state.items() if value})
        return f"?{given}" if given else ""

    def filters(self) -> dict[str, str]:
        chosen = {"version": self.version, "source": self.source, "topic": self.topic}
        return {name: value for name, value in chosen.items() if value}

    def order_in(self, project: Project) -> str:
        """Return the effective order.

        Within one version 'newest' equals 'balanced', which has an index.
        """
        order = self.order or project.queue_order
        return "balanced" if order == "newest" and self.version else order

    def of(self, project: Project) -> CompletionQuerySet:
        """Return the project's completions in this view, unordered."""
        return Completion.objects.filter(project=project, **self.filters())


EVERYTHING = QueueView()


def items_hand_out(
    *,
    project: Project,
    by: User,
    count: int = 2,
    view: QueueView = EVERYTHING,
    elsewhere: Collection[int] = (),
) -> list[Completion]:
    """Return up to `count` items leased to this person: the one to show and the next.

    Items that the person holds already come first, so that a reload shows the same one; a filter
    by version or source applies to the items after them. `elsewhere` are the ids of items that the
    person's other tabs show: they are left out. On PostgreSQL rows locked by another transaction
    are skipped; on SQLite the immediate transaction admits one person at a time.
    """
    with write_transaction():
        return items_take(project=project, by=by, count=count, view=view, elsewhere=elsewhere)


def items_take(
    *,
    project: Project,
    by: User,
    count: int = 2,
    view: QueueView = EVERYTHING,
    elsewhere: Collection[int] = (),
) -> list[Completion]:
    """Do the same within the caller's transaction."""
    # items that are kept ahead were taken without a filter, in the project's order
    held = partial(
        items_held,
        project=project,
        by=by,
        count=count,
        topic=view.topic,
        elsewhere=elsewhere,
        ahead=view == EVERYTHING,
    )
    items = held()
    if project.gold_every and not items:  # after a break, and at the end of the queue
        gold_renew(project=project, by=by, minutes=LEASE_MINUTES)
        items = held()
    gold = gold_insert(
        [item.pk for item in items],
        partial(view.of, project),
        topic=view.topic,
        project=project,
        by=by,
        count=count,
        minutes=LEASE_MINUTES,
    )
    if gold is not None:
        items.append(shown_item(gold))
    items += items_open(count - len(items), project=project, by=by, view=view)
    if len(items) < count and ahead_end(project=project, but=by):
        items += items_open(count - len(items), project=project, by=by, view=view)
    if not items and elsewhere:  # the last ones: better in two tabs than in none
        items = held(elsewhere=())
    for item in items:
        item.project = project
    return items


def items_open(count: int, *, project: Project, by: User, view: QueueView) -> list[Completion]:
    """Lease and return up to `count` items that the person does not hold, or holds ahead."""
    items: list[Completion] = []
    order = view.order_in(project)
    for part in range(parts_of(order)):
        while len(items) < count:
            found = OPEN.rows(
                order,
                part,
                project.overlap,
                count - len(items),
                True,
                project=project.pk,
                user=by.pk,
                now=timezone.now(),
                **view.filters(),
            )
            if not found:
                break
            items += map(with_prompt, leases_take(found, project=project, by=by))
    return items


def ahead_end(*, project: Project, but: User) -> bool:
    """End what others hold ahead, for a person who found too few items; return whether there was
    any. A verdict that comes later is accepted while the item needs one."""
    now = timezone.now()
    others = Lease.objects.filter(ahead=True, expires_at__gt=now, completion__project=project)
    # a row that another transaction has locked is being handed out, or ended
    locked = others.exclude(user=but).only("pk").select_for_update(skip_locked=True, of=("self",))
    return Lease.objects.filter(pk__in=[lease.pk for lease in locked]).update(expires_at=now) > 0


def shown_item(pk: int) -> Completion:
    """Return an item with the columns that a page shows."""
    return Completion.objects.select_related("prompt").only(*SHOWN).get(pk=pk)


def with_prompt(item: Completion) -> Completion:
    """Return an item of `opened` with its prompt's shown columns set."""
    shown = [getattr(item, f"prompt_{name}") for name in SHOWN_PROMPT]
    item.prompt = Prompt.from_db(connection.alias, ["id", *SHOWN_PROMPT], [item.prompt_id, *shown])
    return item


def held(
    count: int, overlap: int, ahead: bool, *, project: Any, user: Any, now: Any, **topic: Any
) -> QuerySet[Lease]:
    """Return the queryset of `items_held`."""
    open_still = Q(completion__queued=True, completion__vote_count__lt=overlap)
    skipped = Skip.objects.filter(completion=OuterRef("completion"), user=user)
    leases = Lease.objects.all() if ahead else Lease.objects.filter(ahead=False)
    return (
        leases.filter(open_still | Q(completion__gold=True), user=user, expires_at__gt=now)
        .exclude(Exists(skipped))
        .filter(completion__project=project, completion__flagged=False)
        .filter(**{f"completion__{name}": value for name, value in topic.items()})
        .select_related("completion__prompt")
        .only("expires_at", "ahead", *(f"completion__{name}" for name in SHOWN))
        .order_by("-front", "ahead", "expires_at", "pk")[:count]
    )


HELD = Prepared(held)


def items_held(
    *,
    project: Project,
    by: User,
    count: int,
    topic: str,
    elsewhere: Collection[int],
    ahead: bool,
    showing: bool = True,
) -> list[Completion]:
    """Return the items of `topic`, if any, that the person holds, without those of `elsewhere`;
    extend all their leases if one of these is half over.

    `ahead` includes what the browser keeps ahead, which is taken now if it is `showing`. A filter
    by version or source does not apply: it would show which ones a gold item has. A lease ends with
    the vote. A skipped item stays leased for UNDO_SKIP and is not shown.
    """
    now = timezone.now()
    values: dict[str, Any] = {"project": project.pk, "user": by.pk, "now": now}
    if topic:
        values["topic"] = topic
    found = HELD.rows(count + len(elsewhere), project.overlap, ahead, **values)
    leases = [lease for lease in found if lease.completion_id not in elsewhere][:count]
    coming = [lease.pk for lease in leases if lease.ahead] if showing else []
    if coming:
        Lease.objects.filter(pk__in=coming).update(ahead=False, taken_at=now)
    fresh = dt.timedelta(minutes=LEASE_MINUTES)
    oldest = min((lease.expires_at for lease in leases), default=now + fresh)
    if oldest < now + fresh / 2:
        leases_extend(project=project, by=by, more=now + fresh - oldest)
    return [lease.completion for lease in leases]


def leases_extend(*, project: Project, by: User, more: dt.timedelta) -> None:
    """Extend the person's leases by the same time, so that their order stays; not those of skipped
    items, which others are to get."""
    skipped = Skip.objects.filter(completion=OuterRef("completion"), user=by)
    mine = Lease.objects.filter(user=by, completion__project=project, expires_at__gt=timezone.now())
    mine.exclude(Exists(skipped)).update(expires_at=F("expires_at") + more)


def opened(
    order: str,
    part: int,
    overlap: int,
    count: int,
    ahead: bool,
    *,
    project: Any,
    user: Any,
    now: Any,
    **filters: Any,
) -> QuerySet[Completion]:
    """Return the items that may be handed out next, locked; one part of the order. With `ahead`
    also those that the person holds ahead.

    The prompt's columns are subqueries: for a join PostgreSQL hashes all prompts of the queue at
    every execution.
    """
    parts = Completion.objects.filter(project=project, **filters).in_queue_order(order)
    prompt = Prompt.objects.filter(pk=OuterRef("prompt"))
    return (
        parts[part]
        .to_hand_out(user, overlap=overlap, now=now, ahead=ahead)
        .annotate(**{f"prompt_{name}": Subquery(prompt.values(name)) for name in SHOWN_PROMPT})
        .only(*SHOWN_ITSELF)
        .select_for_update(skip_locked=True, of=("self",))[:count]
    )


OPEN = Prepared(opened)


def leases_take(
    found: list[Completion],
    *,
    project: Project,
    by: User,
    until: dt.datetime | None = None,
    ahead: bool = False,
) -> list[Completion]:
    """Lease and return those of the locked rows that are still open."""
    now = timezone.now()
    until = until or now + dt.timedelta(minutes=LEASE_MINUTES)
    leases = connection.ops.quote_name(Lease._meta.db_table)
    # checked again under the lock: leases may have been added since the query began, or expired
    sql = f"""
        INSERT INTO {leases} (completion_id, user_id, taken_at, expires_at, front, ahead)
        SELECT %s, %s, %s, %s, %s, %s WHERE %s + (
            SELECT COUNT(*) FROM {leases}
            WHERE completion_id = %s AND expires_at > %s AND user_id <> %s
        ) < %s
        ON CONFLICT (completion_id, user_id) DO UPDATE SET
            taken_at = EXCLUDED.taken_at, expires_at = EXCLUDED.expires_at,
            front = EXCLUDED.front, ahead = EXCLUDED.ahead
        RETURNING completion_id
    """  # noqa: S608
    taken = []
    for item in found:
        lease = [item.pk, by.pk, now, until, False, ahead]
        others = [item.vote_count, item.pk, now, by.pk]
        if run(sql, [*lease, *others, project.overlap]):
            taken.append(item)
    return taken


def slot_free(*, completion: Completion, by: User) -> bool:
    """Return whether the item needs a vote of this person and has a free slot."""
    mine = Completion.objects.filter(pk=completion.pk)
    return mine.open_for(by, overlap=completion.project.overlap).exists()


def lease_take(*, completion: Completion, by: User, front: bool = False) -> Lease:
    """Lease the item to `by`; call it in a transaction that has locked the item."""
    lease, _ = Lease.objects.update_or_create(
        completion=completion,
        user=by,
        defaults={
            "taken_at": timezone.now(),
            "expires_at": timezone.now() + dt.timedelta(minutes=LEASE_MINUTES),
            "front": front,
            "ahead": False,
        },
    )
    return lease


def lease_release(*, completion: Completion, by: User) -> bool:
    """Delete the person's lease on the item; return whether there was one."""
    released, _ = Lease.objects.filter(completion=completion, user=by).delete()
    return released > 0


def item_skip(*, completion: Completion, by: User, flag: bool = False, reason: str = "") -> Skip:
    """Skip an item for this person; a flag removes it from everyone's queue.

    The item goes to another person after UNDO_SKIP.
    """
    with write_transaction():
        given: dict[str, object] = {"reason": reason[:200]}
        if flag:
            given |= {"flag": True, "created_at": timezone.now()}
        skip, _ = Skip.objects.update_or_create(completion=completion, user=by, defaults=given)
        if flag:
            Completion.objects.filter(pk=completion.pk).update(flagged=True)
        until = timezone.now() + UNDO_SKIP
        held = Lease.objects.filter(completion=completion, user=by, expires_at__gt=until)
        held.update(expires_at=until)
    return skip


def skips_open(*, project: Project, user: User) -> QuerySet[Skip]:
    """Return the person's skips, flags left out, of items that still wait for their verdict.

    Gold items are among them as in the queue, so that their number shows none of them.
    """
    needed = Q(completion__queued=True, completion__vote_count__lt=project.overlap)
    judged = Vote.objects.filter(completion=OuterRef("completion"), user=user)
    mine = Skip.objects.filter(user=user, flag=False, completion__project=project)
    return mine.filter(needed | Q(completion__gold=True), completion__flagged=False).exclude(
        Exists(judged)
    )


def skips_undo(*, project: Project, by: User) -> int:
    """Put the items that the person has skipped back into their queue; return their number.

    At most SKIPS_UNDONE at once.
    """
    with write_transaction():
        skips = skips_open(project=project, user=by).values_list("pk", flat=True)
        undone, _ = Skip.objects.filter(pk__in=list(skips[:SKIPS_UNDONE])).delete()
    return undone


def uncertainty_store(*, project: Project, fit: Mapping[int, tuple[float, float]]) -> None:
    """Store how unsure a finished run is of each completion, for the order 'unsure'.

    `fit` maps completion ids to (reward, z₀) in nats. Values of earlier runs are cleared.
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
