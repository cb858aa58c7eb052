"""Reads of the annotation page, in a bounded number of queries."""

import datetime as dt
from dataclasses import dataclass
from typing import Literal

from django.core.cache import cache
from django.db.models import Min
from django.utils import timezone

from feedback_app.accounts.models import User
from feedback_app.db.bounded_count import counted
from feedback_app.feedback.models import Lease, Project, Sampling, Vote
from feedback_app.feedback.models.queue import ORDERS
from feedback_app.feedback.prompts.selectors import (
    distinct_values,
    sampling_active,
    sampling_latest,
)
from feedback_app.feedback.queue.services import (
    EVERYTHING,
    SKIPS_UNDONE,
    QueueView,
    skips_open,
)
from feedback_app.feedback.votes.counts import vote_counts

EmptyReason = Literal["no_prompts", "sampling", "leased", "filtered", "paused", "done"]
#: Open items are counted up to this number; beyond it the page shows 'more than'.
LEFT_LIMIT = 100
#: How long 'more than' is cached.
MANY_LEFT_SECONDS = 5


@dataclass(frozen=True)
class QueueProgress:
    """A person's verdicts today, remaining items, verdicts in the last hour and their pace.

    `left` is None under a filter: the numbers of several filters would show the version and source
    of a gold item.
    """

    today: int
    left: int | None
    in_hour: int
    per_hour: int | None

    @property
    def counted(self) -> int:
        """The bound of the count."""
        return LEFT_LIMIT

    @property
    def many_left(self) -> bool:
        """Whether more items remain than were counted."""
        return self.left is not None and self.left > LEFT_LIMIT

    @property
    def goal(self) -> int:
        """The end of today's progress bar: the total, or the next hundred if that is far or
        unknown."""
        if self.left is None or self.many_left:
            return (self.today // LEFT_LIMIT + 1) * LEFT_LIMIT
        return self.today + self.left


@dataclass(frozen=True)
class EmptyQueue:
    """Why there is no item.

    `until` is when the next lease expires; `skipped` how many answers the person has skipped that
    still need a vote.
    """

    reason: EmptyReason
    until: dt.datetime | None = None
    sampling: Sampling | None = None
    skipped: int = 0


def queue_progress(*, project: Project, user: User, view: QueueView = EVERYTHING) -> QueueProgress:
    """Return the person's progress.

    Reads index ranges that do not grow with the project: the person's last votes and up to a
    hundred open items.
    """
    counts = vote_counts(project=project, user=user)
    left = None if view.narrowed else items_left(project=project, user=user)
    return QueueProgress(
        today=counts.today, left=left, in_hour=counts.hour, per_hour=counts.per_hour
    )


def items_left(*, project: Project, user: User) -> int:
    """Return the number of items left for the person, or LEFT_LIMIT + 1 for more.

    It includes gold items that may still come, so that it falls by one with a gold item as well.
    """
    key = f"many-left:{project.pk}:{user.pk}"
    if cache.get(key) is not None:
        return LEFT_LIMIT + 1
    wanted = project.completions.wanted_from(user, overlap=project.overlap)
    left = wanted.order_by(*ORDERS["balanced"])[: LEFT_LIMIT + 1].count()
    if project.gold_every and left <= LEFT_LIMIT:
        left += project.completions.gold_for(user)[: LEFT_LIMIT + 1 - left].count()
    if left > LEFT_LIMIT:
        # 'more than a hundred' is not counted again at every verdict
        cache.set(key, True, MANY_LEFT_SECONDS)
    return left


def empty_queue(*, project: Project, user: User, view: QueueView = EVERYTHING) -> EmptyQueue:
    """Return why nothing could be handed out."""
    sampling = sampling_active(project)
    if sampling is not None:
        return EmptyQueue("sampling", sampling=sampling)
    wanted = view.of(project).wanted_from(user, overlap=project.overlap)
    if wanted.exists():
        # others have them; without a lease, they are being handed out at this moment
        held = Lease.objects.filter(completion__in=wanted, expires_at__gt=timezone.now())
        until = held.aggregate(first=Min("expires_at"))["first"]
        return EmptyQueue("leased", until=until or timezone.now())
    if view.narrowed and project.completions.wanted_from(user, overlap=project.overlap).exists():
        return EmptyQueue("filtered")
    if not project.completions.in_queue().exists():
        return EmptyQueue("no_prompts", sampling=sampling_latest(project))
    skips = skips_open(project=project, user=user)
    return EmptyQueue("done", skipped=counted(skips, most=SKIPS_UNDONE))


def recent_votes(*, project: Project, user: User, count: int = 10) -> list[Vote]:
    """Return the person's last votes, newest first, with their examples."""
    return list(project.votes.recent_of(user)[:count])


def queue_values(*, project: Project, field: Literal["version", "topic"]) -> list[str]:
    """Return at most fifty versions or topics of the queue, in order."""
    return distinct_values(project=project, field=field, where="queued AND NOT flagged AND")
