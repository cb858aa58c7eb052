"""Named queries of the feedback app: every read that a view or service makes."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any, Self

from django.db import connection
from django.db.models import Count, Exists, F, Model, OuterRef, Q, QuerySet, Subquery
from django.db.models.expressions import RawSQL
from django.db.models.functions import Coalesce
from django.utils import timezone

from feedback_app.accounts.models import Role, User, roles_from

if TYPE_CHECKING:
    from feedback_app.feedback.models import (  # noqa: F401 - the type parameters below
        Completion,
        Example,
        Lease,
        Project,
        Prompt,
        Vote,
    )


#: So many rows are counted for a page; one more means 'more than'.
COUNTED = 10_000


def counted(rows: QuerySet[Any]) -> int:
    """How many rows there are, up to one more than COUNTED: what a page may ask of any table."""
    return rows.order_by()[: COUNTED + 1].count()


def counted_of(owner: type[Model], rows: type[Model], where: str) -> RawSQL:
    """`counted` as a column of each `owner`, of the `rows` in its project for which `where` (SQL)
    holds."""
    quoted = connection.ops.quote_name
    table, outer = quoted(rows._meta.db_table), quoted(owner._meta.db_table)
    within = f"{table}.project_id = {outer}.project_id AND {where}"
    several = f"SELECT 1 FROM {table} WHERE {within} LIMIT {COUNTED + 1}"  # noqa: S608
    return RawSQL(f"SELECT COUNT(*) FROM ({several}) AS several", [])  # noqa: S608, S611


class ProjectQuerySet(QuerySet["Project"]):
    def visible_to(self, user: User, *, least: Role = Role.VIEWER) -> Self:
        """Projects in which `user` has the role `least` or a higher one."""
        return self.filter(memberships__user=user, memberships__role__in=roles_from(least))


#: What each order is sorted by; `models_queue` has an index for each.
ORDERS: dict[str, tuple[str, ...]] = {
    # the first answer of every prompt before the second of any
    "balanced": ("vote_count", "queue_position", "id"),
    "newest": ("vote_count", "-version_number", "queue_position", "id"),
    "contested": ("vote_count", "queue_position", "id"),
    "unsure": ("vote_count", "unsure", "id"),
    "uploaded": ("vote_count", "id"),
}
#: The orders that are about some answers only: these come first, then the rest, balanced.
FIRST_ONLY: dict[str, Q] = {
    "contested": Q(contested=True),
    "unsure": Q(unsure__isnull=False),
}


def parts_of(order: str) -> int:
    """How many parts `in_queue_order` gives."""
    return 2 if order in FIRST_ONLY else 1


class CompletionQuerySet(QuerySet["Completion"]):
    def in_queue(self) -> Self:
        return self.filter(queued=True, flagged=False)

    def in_queue_order(self, order: str = "balanced") -> list[Self]:
        """The parts of the queue, to be read one after the other; a later one may repeat rows."""
        first = FIRST_ONLY.get(order)
        if first is None:
            return [self.order_by(*ORDERS[order])]
        return [
            self.filter(first).order_by(*ORDERS[order]),
            self.order_by(*ORDERS["balanced"]),
        ]

    def unanswered_by(self, user: User, *, overlap: int) -> Self:
        """Without what `user` has voted on or passed by."""
        from feedback_app.feedback.models import Skip, Vote

        mine = {"completion": OuterRef("pk"), "user": user}
        unskipped = self.exclude(Exists(Skip.objects.filter(**mine)))
        # at an overlap of one, what wants a vote has none, so none of theirs
        return unskipped if overlap == 1 else unskipped.exclude(Exists(Vote.objects.filter(**mine)))

    def gold_for(self, user: User) -> Self:
        """Gold items that `user` has neither judged nor passed by."""
        return self.filter(gold=True, flagged=False).unanswered_by(user, overlap=2)

    def needs_votes(self, overlap: int) -> Self:
        return self.filter(vote_count__lt=overlap)

    def wanted_from(self, user: User, *, overlap: int) -> Self:
        """In the queue, short of votes, and not yet judged or passed by by `user`."""
        return self.in_queue().needs_votes(overlap).unanswered_by(user, overlap=overlap)

    def open_for(self, user: User, *, overlap: int, now: dt.datetime | None = None) -> Self:
        """Wanted from `user`, and with a slot that nobody else holds."""
        wanted = self.wanted_from(user, overlap=overlap)
        others = leases_on(now).exclude(user=user)
        if overlap == 1:
            return wanted.exclude(Exists(others))
        held = others.order_by().values("completion").annotate(n=Count("pk")).values("n")
        return wanted.alias(held=Coalesce(Subquery(held), 0)).filter(
            vote_count__lt=overlap - F("held")
        )

    def to_hand_out(self, user: User, *, overlap: int, now: dt.datetime) -> Self:
        """Open for `user`, and not on their screen already."""
        if overlap == 1:
            # whoever holds it, it is held
            return self.wanted_from(user, overlap=1).exclude(Exists(leases_on(now)))
        mine = leases_on(now).filter(user=user)
        return self.open_for(user, overlap=overlap, now=now).exclude(Exists(mine))


def leases_on(now: dt.datetime | None) -> QuerySet[Lease]:
    """The leases of a completion that have not run out, for a subquery."""
    from feedback_app.feedback.models import Lease

    now = timezone.now() if now is None else now
    return Lease.objects.filter(completion=OuterRef("pk"), expires_at__gt=now)


class VoteQuerySet(QuerySet["Vote"]):
    def recent_of(self, user: User) -> Self:
        """Newest first, with all that a list of one's own votes shows."""
        return (
            self.filter(user=user)
            .select_related("completion__prompt", "completion__example")
            .defer("completion__prompt_token_ids", "completion__token_ids")
            .order_by("-updated_at", "-pk")
        )

    def standing(self) -> Self:
        """Those that examples rest on: without what was set aside."""
        return self.filter(set_aside=None)

    def with_person(self) -> Self:
        """In the order in which they were given, each with who gave it."""
        return self.select_related("user").order_by("created_at", "pk")


class ExampleQuerySet(QuerySet["Example"]):
    def counts(self) -> dict[str, int]:
        """How many of each class on each side: train_up, train_down, heldout_up, heldout_down."""
        rows = self.order_by().values_list("split", "desirable").annotate(n=Count("pk"))
        found = {(split, desirable): n for split, desirable, n in rows}
        return {
            f"{split}_{'up' if desirable else 'down'}": found.get((split, desirable), 0)
            for split in ("train", "heldout")
            for desirable in (True, False)
        }
