"""Which waiting run a worker takes next, and when a waiting run may start.

Projects share the workers: next is the run of the project that had the least worker time in the
last 24 hours, divided by the weight of its priority; among equals that of the higher priority, then
the one that was requested first. No project is kept waiting for good: each has at most one active
run, besides the trials of a sweep. Trials are after the runs of all projects, and a sweep has no
more of them in progress than it was started with, so that it leaves the other workers free.
"""

import datetime as dt
import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from django.db.models import OuterRef, Subquery
from django.utils import timezone

from feedback_app.feedback.models import Project
from feedback_app.feedback.models.projects import Priority
from feedback_app.training.models import Run, Sweep
from feedback_app.training.runs.claims import RunClaim, run_claim, startable

#: How far back worker time counts.
WINDOW = dt.timedelta(hours=24)
#: The share of a project by its priority, relative to the others that wait.
WEIGHTS = {Priority.LOW: 0.25, Priority.NORMAL: 1.0, Priority.HIGH: 4.0}


@dataclass(frozen=True)
class Place:
    """A waiting run's place: 1 is next. `seconds` until it starts, None where that is unknown."""

    position: int
    waiting: int
    seconds: float | None


def run_claim_next() -> RunClaim | None:
    """Claim the run that is next; None if no run may start.

    Of workers that ask at once each gets another run: a claim is a compare-and-swap.
    """
    held = trials_held()
    for run in waiting_runs():
        if run.pk in held:
            continue
        claim = run_claim(run.pk)
        if claim is not None:
            return claim
    return None


def trials_held() -> set[int]:
    """Return the ids of the claimable trials for which their sweeps have no free place.

    Places go to the trials that workers take first. So of two workers that ask at once, the one
    that loses a trial to the other takes none in its stead.
    """
    rows = Run.objects.filter(Run.claimable(), evaluates=False, sweep__isnull=False)
    trials = list(rows.order_by("created_at", "pk").values_list("pk", "sweep"))
    if not trials:
        return set()
    sweeps = {sweep for _, sweep in trials}
    places = Counter(dict(Sweep.objects.filter(pk__in=sweeps).values_list("pk", "at_once")))
    working = Run.objects.filter(Run.working(), evaluates=False, sweep__in=sweeps)
    places.subtract(working.exclude(Run.claimable()).values_list("sweep", flat=True))
    held = set()
    for pk, sweep in trials:
        if places[sweep] < 1:
            held.add(pk)
        places[sweep] -= 1
    return held


def waiting_runs(now: dt.datetime | None = None) -> list[Run]:
    """Return the waiting and abandoned runs in the order in which workers take them, those that are
    startable."""
    spent = worker_seconds(now or timezone.now())
    runs = startable(Run.objects.filter(Run.claimable()))

    def key(run: Run) -> tuple[bool, float, float, dt.datetime, int]:
        weight = WEIGHTS[Priority(run.project.priority)]
        trial = not run.evaluates
        return trial, spent[run.project_id] / weight, -weight, run.created_at, run.pk

    return sorted(runs.select_related("snapshot", "project"), key=key)


def worker_seconds(now: dt.datetime) -> defaultdict[int, float]:
    """Return the worker time of each project in the 24 hours before `now`, in seconds.

    From a run's first claim to its end, or for one that has not ended to its last heartbeat.
    """
    begin = now - WINDOW
    spent: defaultdict[int, float] = defaultdict(float)
    rows = Run.objects.filter(heartbeat_at__gt=begin, started_at__isnull=False)
    for run in rows.only("project_id", "started_at", "heartbeat_at", "finished_at"):
        end = run.finished_at or run.heartbeat_at
        if run.started_at is not None and end is not None:
            seconds = (min(end, now) - max(run.started_at, begin)).total_seconds()
            spent[run.project_id] += max(0.0, seconds)
    return spent


def place_of(run: Run, now: dt.datetime | None = None) -> Place | None:
    """Return the place of a run among those that wait for a worker; None if it does not.

    The time until it starts follows from the durations of earlier runs of the projects before it.
    It is unknown while no run is in progress, if one takes longer than expected, if a project
    before it has no finished run yet, and for trials, which runs of later requests go before.
    """
    now = now or timezone.now()
    waiting = waiting_runs(now)
    position = next((at for at, other in enumerate(waiting, 1) if other.pk == run.pk), None)
    if position is None:
        return None
    before = waiting[: position - 1]
    seconds = seconds_to_start(before, working_runs(), now) if run.evaluates else None
    return Place(position, len(waiting), seconds)


def working_runs() -> list[Run]:
    """Return the runs whose workers have a heartbeat."""
    runs = Run.objects.filter(Run.working()).exclude(Run.claimable())
    return list(runs.select_related("snapshot"))


def seconds_to_start(before: list[Run], working: list[Run], now: dt.datetime) -> float | None:
    """Return when the next run after `before` starts on the workers of `working`, in seconds."""
    expected = expected_seconds([*before, *working])
    free: list[float] = []  # when each worker becomes free
    for run in working:
        total = expected.get(run.pk)
        if total is None or run.started_at is None:
            return None
        left = total - (now - run.started_at).total_seconds()
        if left < 0:
            return None
        heapq.heappush(free, left)
    if not free:
        return None
    for run in before:
        total = expected.get(run.pk)
        if total is None:
            return None
        heapq.heappush(free, heapq.heappop(free) + total)
    return free[0]


def expected_seconds(runs: Iterable[Run]) -> dict[int, float]:
    """Return the expected duration of runs by id: that of the project's last finished run, in
    proportion to the examples times epochs. Runs of other projects are left out."""
    runs = list(runs)
    last = Run.objects.filter(
        project=OuterRef("pk"), status=Run.Status.SUCCEEDED, started_at__isnull=False
    ).order_by("-number")
    projects = Project.objects.filter(pk__in={run.project_id for run in runs})
    found = Run.objects.filter(pk__in=projects.values_list(Subquery(last.values("pk")[:1])))
    finished = {run.project_id: run for run in found.select_related("snapshot")}
    expected = {}
    for run in runs:
        done = finished.get(run.project_id)
        if done is None or done.started_at is None or done.finished_at is None:
            continue
        seconds = (done.finished_at - done.started_at).total_seconds()
        if work(done):
            expected[run.pk] = seconds * work(run) / work(done)
    return expected


def work(run: Run) -> float:
    """Return what a run's duration is in proportion to: examples times epochs."""
    return float(run.snapshot.train_total * run.config.get("epochs", 1))
