"""What the annotation pages need to know, read in a bounded number of queries."""

import datetime as dt
from dataclasses import dataclass
from typing import Literal

from django.core.cache import cache
from django.db.models import Min
from django.utils import timezone

from feedback_app.accounts.models import User
from feedback_app.feedback.models import Lease, Project, Sampling, Vote
from feedback_app.feedback.models.queue import ORDERS
from feedback_app.feedback.prompts.selectors import distinct_values
from feedback_app.feedback.queue.services import EVERYTHING, QueueView
from feedback_app.feedback.votes.counts import vote_counts

EmptyReason = Literal["no_prompts", "sampling", "leased", "filtered", "paused", "done"]
#: So many open answers are counted; beyond it the desk says 'more than'.
LEFT_LIMIT = 100
#: So long it is believed that they are many, in this process.
MANY_LEFT_SECONDS = 5


@dataclass(frozen=True)
class QueueProgress:
    """Where a person stands: verdicts today, what is left for them, and their pace an hour."""

    today: int
    left: int
    per_hour: int

    @property
    def counted(self) -> int:
        """How far the count goes."""
        return LEFT_LIMIT

    @property
    def many_left(self) -> bool:
        """More is left than was counted."""
        return self.left > LEFT_LIMIT

    @property
    def goal(self) -> int:
        """What today's bar counts up to: the end, or the next hundred while that is far."""
        if self.many_left:
            return (self.today // LEFT_LIMIT + 1) * LEFT_LIMIT
        return self.today + self.left


@dataclass(frozen=True)
class EmptyQueue:
    """Why nothing is on the screen. `until` is when the next leased item frees up."""

    reason: EmptyReason
    until: dt.datetime | None = None
    sampling: Sampling | None = None


def queue_progress(*, project: Project, user: User, view: QueueView = EVERYTHING) -> QueueProgress:
    """Counts over index ranges that do not grow with the project: one person's last votes, and up
    to a hundred open answers."""
    today, hour = vote_counts(project=project, user=user)
    key = f"many-left:{project.pk}:{user.pk}:{view.query}"
    if cache.get(key) is not None:
        left = LEFT_LIMIT + 1
    else:
        wanted = view.of(project).wanted_from(user, overlap=project.overlap)
        left = wanted.order_by(*ORDERS["balanced"])[: LEFT_LIMIT + 1].count()
        if left > LEFT_LIMIT:
            # 'more than a hundred' need not be found anew at every verdict
            cache.set(key, True, MANY_LEFT_SECONDS)
    return QueueProgress(today=today, left=left, per_hour=hour)


def sampling_active(project: Project) -> Sampling | None:
    """The sampling that is under way or waits, if any."""
    return project.samplings.filter(
        status__in=[Sampling.Status.QUEUED, Sampling.Status.RUNNING]
    ).first()


def sampling_latest(project: Project) -> Sampling | None:
    """The newest sampling, whatever became of it."""
    return project.samplings.order_by("-pk").first()


def empty_queue(*, project: Project, user: User, view: QueueView = EVERYTHING) -> EmptyQueue:
    """Call it when nothing could be handed out: says why, never just 'empty'."""
    sampling = sampling_active(project)
    if sampling is not None:
        return EmptyQueue("sampling", sampling=sampling)
    wanted = view.of(project).wanted_from(user, overlap=project.overlap)
    if wanted.exists():
        # somebody has them; no lease to be seen: they are being handed out this moment
        held = Lease.objects.filter(completion__in=wanted, expires_at__gt=timezone.now())
        until = held.aggregate(first=Min("expires_at"))["first"]
        return EmptyQueue("leased", until=until or timezone.now())
    if view.narrowed and project.completions.wanted_from(user, overlap=project.overlap).exists():
        return EmptyQueue("filtered")
    if not project.completions.in_queue().exists():
        return EmptyQueue("no_prompts", sampling=sampling_latest(project))
    return EmptyQueue("done")


def recent_votes(*, project: Project, user: User, count: int = 10) -> list[Vote]:
    """The last verdicts of a person, newest first; each knows its fate by its example."""
    return list(project.votes.recent_of(user)[:count])


def queue_values(*, project: Project, field: Literal["version", "topic"]) -> list[str]:
    """The versions or topics that the queue holds, at most fifty, in order."""
    return distinct_values(project=project, field=field, where="queued AND NOT flagged AND")
