"""Named queries of the feedback app: every read that a view or service makes."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Self

from django.db.models import Count, Exists, F, OuterRef, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.utils import timezone

from feedback_app.accounts.models import Role, User, roles_from

if TYPE_CHECKING:
    from feedback_app.feedback.models import (  # noqa: F401 - the type parameters below
        Completion,
        Example,
        Project,
        Prompt,
        Vote,
    )


class ProjectQuerySet(QuerySet["Project"]):
    def visible_to(self, user: User, *, least: Role = Role.VIEWER) -> Self:
        """Projects in which `user` has the role `least` or a higher one."""
        return self.filter(memberships__user=user, memberships__role__in=roles_from(least))


class CompletionQuerySet(QuerySet["Completion"]):
    def in_queue(self) -> Self:
        return self.filter(queued=True, flagged=False)

    def in_queue_order(self) -> Self:
        """The first answer of every prompt before the second of any."""
        return self.order_by("queue_position", "id")

    def unanswered_by(self, user: User) -> Self:
        """Without what `user` has voted on or passed by."""
        from feedback_app.feedback.models import Skip, Vote

        mine = {"completion": OuterRef("pk"), "user": user}
        return self.exclude(Exists(Vote.objects.filter(**mine))).exclude(
            Exists(Skip.objects.filter(**mine))
        )

    def needs_votes(self, overlap: int) -> Self:
        return self.filter(vote_count__lt=overlap)

    def open_for(self, user: User, *, overlap: int) -> Self:
        """In the queue, wanting votes, and with a slot that nobody else holds."""
        from feedback_app.feedback.models import Lease

        held_by_others = (
            Lease.objects.filter(completion=OuterRef("pk"), expires_at__gt=timezone.now())
            .exclude(user=user)
            .order_by()
            .values("completion")
            .annotate(n=Count("pk"))
            .values("n")
        )
        return (
            self.in_queue()
            .needs_votes(overlap)
            .unanswered_by(user)
            .annotate(held=Coalesce(Subquery(held_by_others), 0))
            .filter(vote_count__lt=overlap - F("held"))
        )

    def leased_to(self, user: User) -> Self:
        return self.filter(leases__user=user, leases__expires_at__gt=timezone.now())


class VoteQuerySet(QuerySet["Vote"]):
    def recent_of(self, user: User) -> Self:
        """Newest first, with all that a list of one's own votes shows."""
        return (
            self.filter(user=user)
            .select_related("completion__prompt", "completion__example")
            .order_by("-updated_at", "-pk")
        )

    def since(self, moment: dt.datetime) -> Self:
        return self.filter(created_at__gte=moment)


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
