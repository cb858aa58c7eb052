"""A person's vote counts of the day and the last hour, cached in part, and the hourly limit.

The limit counts rows of two tables in a sliding hour, unlike the counters of db/rate_limit.py. At
the annotation page it uses the count that the page shows.
"""

import datetime as dt
from dataclasses import dataclass
from typing import Any

from django.core.cache import cache
from django.db.models import Aggregate, Count, Min, Q
from django.utils import timezone

from feedback_app.accounts.models import User
from feedback_app.feedback.models import Project, Vote, VoteEvent
from feedback_app.web.errors import RateLimited

#: How long the count of a person's earlier votes is cached.
CACHE_SECONDS = 10
#: Younger votes are never cached: they may be uncommitted, or undone soon.
SETTLING = dt.timedelta(seconds=2)
#: More later votes than this make the cached count obsolete.
RECOUNT_AFTER = 100
#: The period of the hourly limit.
HOUR = dt.timedelta(hours=1)
#: A pace is shown after so long.
PACE_AFTER = dt.timedelta(minutes=5)
#: The Retry-After of an API's response to a vote beyond the limit.
RETRY_SECONDS = 60


@dataclass(frozen=True)
class VoteCounts:
    """A person's votes since midnight and in the last hour; `began`: the first of that hour."""

    today: int
    hour: int
    began: dt.datetime | None

    @property
    def per_hour(self) -> int | None:
        """Votes per hour since `began`, or None for less than PACE_AFTER."""
        if self.began is None or timezone.now() - self.began < PACE_AFTER:
            return None
        # the time before the first vote is unknown
        return round((self.hour - 1) * (HOUR / (timezone.now() - self.began)))


@dataclass(frozen=True)
class CountsUntil:
    """Votes cast by `until`: since that day's midnight, and in the hour before."""

    until: dt.datetime
    today: int
    hour: int
    began: dt.datetime | None


def vote_counts(*, project: Project, user: User) -> VoteCounts:
    """Return how many votes the person has cast today and in the last hour.

    Older votes are cached for CACHE_SECONDS. Until then a process other than the one that undid a
    vote may count one too many.
    """
    now = timezone.now()
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    key = _key(project, user)
    known: CountsUntil | None = cache.get(key)
    if known is not None and known.until >= midnight:
        (later,) = votes_since(known.until, project=project, user=user)
        if later > RECOUNT_AFTER:
            cache.delete(key)
        return VoteCounts(known.today + later, known.hour + later, known.began)
    until = max(now - SETTLING, midnight)
    hour_ago = now - HOUR
    first = Min("created_at", filter=Q(created_at__gte=hour_ago))
    today, hour, later, began = votes_since(
        midnight, hour_ago, until, project=project, user=user, began=first
    )
    cache.set(key, CountsUntil(until, today - later, hour - later, began), CACHE_SECONDS)
    return VoteCounts(today, hour, began)


def vote_counts_forget(*, project: Project, user: User) -> None:
    """Discard the cached counts after a vote was deleted."""
    cache.delete(_key(project, user))


def votes_since(
    *moments: dt.datetime, project: Project, user: User, **more: Aggregate
) -> tuple[Any, ...]:
    """Return how many votes the person has cast since each moment, and `more` about them."""
    # created_at >= x implies updated_at >= x, which is indexed
    recent = Vote.objects.filter(project=project, user=user, updated_at__gte=min(moments))
    counts = {
        f"since_{number}": Count("pk", filter=Q(created_at__gte=moment))
        for number, moment in enumerate(moments)
    }
    return tuple(recent.aggregate(**counts, **more).values())


def rate_limit_note(*, project: Project, by: User, in_hour: int) -> None:
    """Cache that this person's next votes must be checked, if they may exceed the limit.

    It is cached for an hour, after which all votes that were counted are too old to count.
    """
    if project.votes_per_hour and in_hour >= project.votes_per_hour:
        cache.set(_limit_key(project, by), True, HOUR.total_seconds())


def rate_limit_note_undo(*, project: Project, by: User) -> None:
    """Do the same after an undo: undone votes count, so that nobody votes and undoes forever."""
    if project.votes_per_hour:
        rate_limit_note(project=project, by=by, in_hour=verdicts_in_hour(project=project, by=by))


def verdicts_in_hour(*, project: Project, by: User) -> int:
    """Return the person's verdicts of the last hour, bounded by the project's limit.

    An undone verdict has no vote any more, but an event.
    """
    since = timezone.now() - HOUR
    # created_at >= x implies updated_at >= x, which is indexed
    cast = Vote.objects.filter(
        project=project, user=by, updated_at__gte=since, created_at__gte=since
    )
    undone = VoteEvent.objects.filter(
        user=by, verdict="", created_at__gte=since, completion__project=project
    )
    both = cast.values("pk").union(undone.values("pk"), all=True)
    return both[: project.votes_per_hour].count()


def rate_limit_check_noted(*, project: Project, by: User, completion: int) -> None:
    """Check the limit only if `rate_limit_note` has noted that it may be exceeded."""
    if cache.get(_limit_key(project, by)) is not None:
        rate_limit_check(project=project, by=by, completion=completion)


def rate_limit_check(*, project: Project, by: User, completion: int) -> None:
    """Raise RateLimited for a new vote beyond the hourly limit.

    Changes to earlier votes are always allowed.
    """
    if not project.votes_per_hour:
        return
    in_hour = verdicts_in_hour(project=project, by=by)
    # this vote counts as well once it is stored
    rate_limit_note(project=project, by=by, in_hour=in_hour + 1)
    if in_hour < project.votes_per_hour:
        return
    if not Vote.objects.filter(completion=completion, user=by).exists():
        raise RateLimited(
            f"You have reached this project's limit of {project.votes_per_hour:,} votes per hour. "
            "Take a break and go on later."
        )


def _key(project: Project, user: User) -> str:
    return f"vote-counts:{project.pk}:{user.pk}"


def _limit_key(project: Project, user: User) -> str:
    return f"rate-limit:{project.pk}:{user.pk}"
