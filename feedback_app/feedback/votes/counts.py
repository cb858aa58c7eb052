"""A person's vote counts of the day and the last hour, cached in part."""

import datetime as dt
from dataclasses import dataclass

from django.core.cache import cache
from django.db.models import Count, Q
from django.utils import timezone

from feedback_app.accounts.models import User
from feedback_app.feedback.models import Project, Vote

#: How long the count of a person's earlier votes is cached.
CACHE_SECONDS = 10
#: Younger votes are never cached: they may be uncommitted, or undone soon.
SETTLING = dt.timedelta(seconds=2)
#: More later votes than this make the cached count obsolete.
RECOUNT_AFTER = 100


@dataclass(frozen=True)
class CountsUntil:
    """Votes cast by `until`: since that day's midnight, and in the hour before."""

    until: dt.datetime
    today: int
    hour: int


def vote_counts(*, project: Project, user: User) -> tuple[int, int]:
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
        return known.today + later, known.hour + later
    until = max(now - SETTLING, midnight)
    hour_ago = now - dt.timedelta(hours=1)
    today, hour, later = votes_since(midnight, hour_ago, until, project=project, user=user)
    cache.set(key, CountsUntil(until, today - later, hour - later), CACHE_SECONDS)
    return today, hour


def vote_counts_forget(*, project: Project, user: User) -> None:
    """Discard the cached counts after a vote was deleted."""
    cache.delete(_key(project, user))


def votes_since(*moments: dt.datetime, project: Project, user: User) -> tuple[int, ...]:
    """Return how many votes the person has cast since each moment."""
    # created_at >= x implies updated_at >= x, which is indexed
    recent = Vote.objects.filter(project=project, user=user, updated_at__gte=min(moments))
    counts = {
        f"since_{number}": Count("pk", filter=Q(created_at__gte=moment))
        for number, moment in enumerate(moments)
    }
    return tuple(recent.aggregate(**counts).values())


def _key(project: Project, user: User) -> str:
    return f"vote-counts:{project.pk}:{user.pk}"
