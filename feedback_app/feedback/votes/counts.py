"""How many votes a person has cast today and within the hour, counted anew only at the end."""

import datetime as dt
from dataclasses import dataclass

from django.core.cache import cache
from django.db import connection
from django.utils import timezone

from feedback_app.accounts.models import User
from feedback_app.db.prepared import run
from feedback_app.feedback.models import Project, Vote

#: So long a process believes what it has counted of a person's earlier votes.
BELIEVED_SECONDS = 10
#: A vote so young may still be on its way into the database, or be taken back at once.
SETTLING = dt.timedelta(seconds=2)
#: So many later votes are counted before the earlier ones are counted anew.
LATER_LIMIT = 100


@dataclass(frozen=True)
class CountsUntil:
    """What had been cast by `until`: since that day's midnight, and in the hour before."""

    until: dt.datetime
    today: int
    hour: int


def vote_counts(*, project: Project, user: User) -> tuple[int, int]:
    """How many votes this person has cast today and within the hour.

    A day's votes are thousands, and somebody looks after each. What an earlier count has said of
    the earlier ones stands for some seconds; a process other than the one in which such a vote is
    taken back has it one too high until then.
    """
    now = timezone.now()
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    key = _key(project, user)
    known: CountsUntil | None = cache.get(key)
    if known is not None and known.until >= midnight:
        (later,) = votes_since(known.until, project=project, user=user)
        if later > LATER_LIMIT:
            cache.delete(key)
        return known.today + later, known.hour + later
    until = max(now - SETTLING, midnight)
    hour_ago = now - dt.timedelta(hours=1)
    today, hour, later = votes_since(midnight, hour_ago, until, project=project, user=user)
    cache.set(key, CountsUntil(until, today - later, hour - later), BELIEVED_SECONDS)
    return today, hour


def vote_counts_forget(*, project: Project, user: User) -> None:
    """A vote of theirs is gone: counts all of them anew."""
    cache.delete(_key(project, user))


def votes_since(*moments: dt.datetime, project: Project, user: User) -> tuple[int, ...]:
    """How many votes this person has cast since each moment."""
    counts = ", ".join(["COUNT(*) FILTER (WHERE created_at >= %s)"] * len(moments))
    sql = f"""
        SELECT {counts} FROM {connection.ops.quote_name(Vote._meta.db_table)}
        WHERE project_id = %s AND user_id = %s AND updated_at >= %s
    """  # noqa: S608
    # what was cast since then was changed since then, and that is what there is an index on
    ((*found,),) = run(sql, [*moments, project.pk, user.pk, min(moments)])
    return tuple(found)


def _key(project: Project, user: User) -> str:
    return f"votes-tally:{project.pk}:{user.pk}"
