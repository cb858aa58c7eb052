"""What the annotation pages need to know, read in a bounded number of queries."""

import datetime as dt
from dataclasses import dataclass
from typing import Literal

from django.db.models import Min
from django.utils import timezone

from feedback_app.accounts.models import User
from feedback_app.feedback.models import Lease, Project, Sampling, Vote

EmptyReason = Literal["no_prompts", "sampling", "leased", "done"]


@dataclass(frozen=True)
class QueueProgress:
    """Where a person stands: verdicts today, what is left for them, and their pace an hour."""

    today: int
    left: int
    per_hour: int

    @property
    def goal(self) -> int:
        """What today's bar counts up to."""
        return self.today + self.left


@dataclass(frozen=True)
class EmptyQueue:
    """Why nothing is on the screen. `until` is when the next leased item frees up."""

    reason: EmptyReason
    until: dt.datetime | None = None
    sampling: Sampling | None = None


def queue_progress(*, project: Project, user: User) -> QueueProgress:
    """Three counts over indexed ranges."""
    now = timezone.now()
    mine = Vote.objects.filter(project=project, user=user)
    today = mine.since(now.replace(hour=0, minute=0, second=0, microsecond=0)).count()
    left = project.completions.in_queue().needs_votes(project.overlap).unanswered_by(user).count()
    return QueueProgress(
        today=today, left=left, per_hour=mine.since(now - dt.timedelta(hours=1)).count()
    )


def sampling_active(project: Project) -> Sampling | None:
    """The sampling that is under way or waits, if any."""
    return project.samplings.filter(
        status__in=[Sampling.Status.QUEUED, Sampling.Status.RUNNING]
    ).first()


def sampling_latest(project: Project) -> Sampling | None:
    """The newest sampling, whatever became of it."""
    return project.samplings.order_by("-pk").first()


def empty_queue(*, project: Project, user: User) -> EmptyQueue:
    """Call it when nothing could be handed out: says why, never just 'empty'."""
    sampling = sampling_active(project)
    if sampling is not None:
        return EmptyQueue("sampling", sampling=sampling)
    wanting = project.completions.in_queue().needs_votes(project.overlap).unanswered_by(user)
    until = Lease.objects.filter(completion__in=wanting, expires_at__gt=timezone.now()).aggregate(
        first=Min("expires_at")
    )["first"]
    if until is not None:
        return EmptyQueue("leased", until=until)
    if not project.completions.in_queue().exists():
        return EmptyQueue("no_prompts", sampling=sampling_latest(project))
    return EmptyQueue("done")


def recent_votes(*, project: Project, user: User, count: int = 10) -> list[Vote]:
    """The last verdicts of a person, newest first; each knows its fate by its example."""
    return list(project.votes.recent_of(user)[:count])
