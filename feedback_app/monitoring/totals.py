"""Figures from the database, with bounded work: no query counts a million rows."""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass

from django.core.cache import cache
from django.db import connection
from django.db.models import Count, DurationField, F, Min, Sum
from django.utils import timezone

from feedback_app.feedback.models import Lease, Source, Verdict, VoteEvent
from feedback_app.training.models import Adapter, GateOutcome, Run

#: How long figures are used again. In the shared cache, so that a scrape that another process
#: answers never sees older figures, which Prometheus would take for a restart.
CACHE_SECONDS = 15
#: The most items of a project, and the most leases, that are counted.
ITEMS, LEASES = 2_000, 10_000
#: The most vote events that one scrape reads; more are read by the next.
EVENTS = 20_000
#: Vote events younger than this are left for the next scrape: one with a lower id may still be
#: uncommitted.
SETTLED = dt.timedelta(seconds=5)
UNDONE = "undone"
TOTALS_KEY, VOTES_KEY = "monitoring:totals", "monitoring:votes"


@dataclass(frozen=True)
class Totals:
    """Figures of all projects together."""

    waiting: int
    leases: int
    runs: Mapping[str, int]
    run_seconds: Mapping[str, float]
    run_heartbeat_age: float
    gate: Mapping[str, int]
    votes: Mapping[tuple[str, str], int]


def totals() -> Totals:
    """Return the figures, at most CACHE_SECONDS old."""
    found: Totals | None = cache.get(TOTALS_KEY)
    if found is None:
        found = compute()
        cache.set(TOTALS_KEY, found, CACHE_SECONDS)
    return found


def compute() -> Totals:
    """Return the current figures, in five queries."""
    now = timezone.now()
    # leases last minutes: those that have not expired are among the newest
    newest = Lease.objects.order_by("-pk").values_list("expires_at", flat=True)[:LEASES]
    spent = Sum(F("finished_at") - F("started_at"), output_field=DurationField())
    runs = {
        row["status"]: row
        for row in Run.objects.order_by()
        .values("status")
        .annotate(n=Count("pk"), spent=spent, beat=Min("heartbeat_at"))
    }
    beats = [runs[status]["beat"] for status in Run.WORKING if status in runs]
    gate = dict(Adapter.objects.order_by().values_list("gate_outcome").annotate(n=Count("pk")))
    return Totals(
        waiting=items_waiting(),
        leases=sum(expires_at > now for expires_at in newest),
        runs={status: runs[status]["n"] if status in runs else 0 for status in Run.Status.values},
        run_seconds={
            status: row["spent"].total_seconds() for status, row in runs.items() if row["spent"]
        },
        run_heartbeat_age=max(((now - beat).total_seconds() for beat in beats if beat), default=0),
        gate={outcome: gate.get(outcome, 0) for outcome in GateOutcome.values},
        votes=votes_counted(now),
    )


def items_waiting() -> int:
    """Return the items that need votes, at most ITEMS of each project.

    In SQL, because a queryset cannot limit a correlated subquery and count its rows. The order is
    that of an index: without it PostgreSQL reads the whole table (0.2 s with 400,000 items).
    """
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT COALESCE(SUM(waiting), 0) FROM (
                SELECT (
                    SELECT COUNT(*) FROM (
                        SELECT 1 FROM feedback_completion c
                        WHERE c.project_id = p.id AND c.queued AND NOT c.flagged
                            AND c.vote_count < p.overlap
                        ORDER BY c.vote_count, c.queue_position, c.id
                        LIMIT %s
                    ) AS items
                ) AS waiting FROM feedback_project p
            ) AS projects
            """,
            [ITEMS],
        )
        return int(cursor.fetchone()[0])


def votes_counted(now: dt.datetime) -> dict[tuple[str, str], int]:
    """Return the vote events since counting began, by verdict and source.

    The cache holds the counts and the id up to which events were counted, so that a scrape reads
    new events only. Once it is emptied, counting begins again with the next event. The result is
    empty if the cache cannot be reached: zeros would look like a restart of all counters.
    """
    verdicts = [*Verdict.values, UNDONE]
    zero = {(verdict, source): 0 for verdict in verdicts for source in Source.values}
    known: tuple[int, dict[tuple[str, str], int]] | None = cache.get(VOTES_KEY)
    if known is None:
        last = VoteEvent.objects.order_by("-pk").values_list("pk", flat=True).first()
        cache.set(VOTES_KEY, (last or 0, zero), None)
        return zero if cache.get(VOTES_KEY) is not None else {}
    last_counted, counts = known[0], {**zero, **known[1]}
    new = VoteEvent.objects.filter(pk__gt=last_counted).order_by("pk")
    for pk, verdict, source, at in new.values_list("pk", "verdict", "source", "created_at")[
        :EVENTS
    ]:
        if at > now - SETTLED:
            break
        last_counted = pk
        counts[verdict or UNDONE, source] = counts.get((verdict or UNDONE, source), 0) + 1
    cache.set(VOTES_KEY, (last_counted, counts), None)
    return counts
