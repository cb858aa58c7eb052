"""Taking the snapshots that queued runs and sweeps of large projects wait for.

A snapshot is taken by one worker at a time, from the votes as they are then; one without a group
of votes is a copy of an earlier one. On PostgreSQL it is one transaction, of which a crash leaves
nothing; on SQLite it is written in pieces (snapshots/pieces.py), and what a crash leaves is deleted
by the worker that takes it next. One run waits for a snapshot, or the trials of a sweep.
"""

import datetime as dt
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import structlog
from django.db import IntegrityError, connection, transaction
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.utils import timezone

from feedback_app.db.claims import Claim, ClaimLost
from feedback_app.db.write_lock import write_transaction
from feedback_app.feedback.access import ARCHIVED
from feedback_app.feedback.models import Project
from feedback_app.training.forgetting.services import retraining_objections
from feedback_app.training.influence.services import snapshot_without
from feedback_app.training.models import Erasure, Run, RunNote, Snapshot, Sweep
from feedback_app.training.runs import services
from feedback_app.training.runs.config import RunConfig
from feedback_app.training.runs.planning.objections import gate_objection
from feedback_app.training.runs.planning.plan import run_plan
from feedback_app.training.snapshots.caps import SnapshotTotals, people_cap, snapshot_totals
from feedback_app.training.snapshots.pieces import PIECE_ROWS, WHOLE, Pieces, items_remove
from feedback_app.training.snapshots.services import snapshot_freeze, snapshot_keep_test
from feedback_app.training.sweeps.plan import sweep_plan

log = structlog.get_logger(__name__)

SnapshotClaim = Claim[Snapshot]
#: Of attempts that fail, or workers that die, while they take a snapshot.
MAX_CLAIMS = 10


class Refused(Exception):
    """The examples are too few for the runs of the snapshot, or it cannot be taken."""


class Postponed(Exception):
    """No run waits for the snapshot any more, or people were erased while it was taken."""


def snapshots_due() -> QuerySet[Snapshot]:
    """Return the snapshots that a queued run waits for and that no worker is taking; none of a
    project that somebody is being erased from."""
    waiting = Run.objects.filter(snapshot=OuterRef("pk"), status=Run.Status.QUEUED)
    erasing = Erasure.objects.filter(project=OuterRef("project"), finished_at=None)
    rows = Snapshot.objects.filter(Snapshot.claimable())
    return rows.filter(Exists(waiting)).exclude(Exists(erasing))


def snapshot_take(pk: int) -> bool:
    """Take a snapshot; return False if another worker does, or nothing waits for it any more.

    If the examples are too few the runs that wait for it fail, with what is missing. Resumed after
    that, or after they were cancelled, they get a snapshot of then.
    """
    claim = SnapshotClaim.take(Snapshot.objects.select_related("project").filter(pk=pk))
    if claim is None:
        return False
    try:
        with claim.kept_alive(), written(claim) as pieces:
            _take(claim, pieces)
    except Postponed:
        claim.update(status=Snapshot.Status.QUEUED, attempt=0)
    except Refused as refused:
        runs_fail(claim, str(refused))
    except ClaimLost:
        log.warning("snapshot_claim_lost", snapshot=pk, attempt=claim.attempt)
    except IntegrityError as error:
        # an answer was deleted after it had been copied: its row is missed when the copy ends
        log.warning("snapshot_taken_again", snapshot=pk, attempt=claim.attempt, why=str(error))
        claim.update(status=Snapshot.Status.QUEUED)
    else:
        log.info("snapshot_taken", snapshot=pk, project=claim.row.project.slug)
        return True
    return False


@contextmanager
def written(claim: SnapshotClaim) -> Iterator[Pieces]:
    """Return how the snapshot is written; an exception leaves nothing of it."""
    if connection.vendor != "sqlite":
        with transaction.atomic():
            yield WHOLE
        return

    @contextmanager
    def part() -> Iterator[None]:
        with write_transaction():
            # what this worker writes after a takeover would be mixed with what the next one writes
            if not claim.held().exists():
                raise ClaimLost
            yield

    pieces = Pieces(part, PIECE_ROWS)
    items_remove(claim.row, pieces)
    try:
        yield pieces
    except ClaimLost:
        raise
    except BaseException:
        # what a worker that has taken over writes is not ours
        with suppress(ClaimLost):
            items_remove(claim.row, pieces)
        raise


def _take(claim: SnapshotClaim, pieces: Pieces) -> None:
    """Copy the examples and end the claim. Raises Refused, Postponed and ClaimLost."""
    if claim.attempt > MAX_CLAIMS:
        raise Refused(f"{MAX_CLAIMS} attempts in a row to take the snapshot failed.")
    snapshot = claim.row
    runs, started = list(waiting_runs(snapshot)), timezone.now()
    if not runs:
        raise Postponed
    if snapshot.project.archived_at is not None:
        raise Refused(ARCHIVED)
    if snapshot.without:
        with pieces.part():
            copy_without(snapshot, runs[0])
    else:
        examples_freeze(snapshot, runs, pieces)
    with pieces.part():
        # an erasure that begins after this waits for it, and finds the snapshot
        Project.objects.select_for_update(no_key=True).get(pk=snapshot.project_id)
        if not waiting_runs(snapshot).exists() or erased_since(started, snapshot):
            raise Postponed
        if not claim.update(status=Snapshot.Status.TAKEN):
            raise ClaimLost


def erased_since(started: dt.datetime, snapshot: Snapshot) -> bool:
    """Return whether votes were erased meanwhile: an erasure changes the examples of the snapshots
    that it sees, and this one was not there yet."""
    erasures = Erasure.objects.filter(project=snapshot.project_id)
    return erasures.filter(Q(finished_at=None) | Q(finished_at__gte=started)).exists()


def examples_freeze(snapshot: Snapshot, runs: list[Run], pieces: Pieces) -> None:
    """Copy the project's examples, and store the forecast of what waits. Raises Refused."""
    project, sweep = snapshot.project, runs[0].sweep
    cap = people_cap(project)
    totals = snapshot_totals(project, cap)
    forecast = forecast_made(runs, totals)
    snapshot_freeze(project=project, cap=cap, totals=totals, queued=snapshot, pieces=pieces)
    if not runs[0].trains:
        snapshot_keep_test(snapshot, pieces)
    with pieces.part():
        if sweep is not None:
            Sweep.objects.filter(pk=sweep.pk).update(forecast=forecast)
        else:
            Run.objects.filter(pk=runs[0].pk).update(forecast=forecast)


def copy_without(snapshot: Snapshot, run: Run) -> None:
    """Copy another snapshot without a group's votes. Raises Refused."""
    asked = snapshot.without
    original = Snapshot.objects.get(pk=asked["snapshot"], project=snapshot.project_id)
    snapshot_without(original, asked["kind"], asked["key"], queued=snapshot)
    if objections := retraining_objections(run, snapshot):
        raise Refused(" ".join(objections))


def waiting_runs(snapshot: Snapshot) -> QuerySet[Run]:
    """Return the runs that wait for a snapshot: one, or the trials of a sweep."""
    runs = snapshot.runs.filter(status=Run.Status.QUEUED).order_by("number")
    return runs.select_related("project", "sweep")


def forecast_made(runs: list[Run], totals: SnapshotTotals) -> dict[str, Any] | None:
    """Return what is stored as the forecast of the run or the sweep; None for an imported version.

    Raises Refused with why the examples are too few.
    """
    run = runs[0]
    project, configs = run.project, [RunConfig.stored(each.config) for each in runs]
    if not run.trains:
        if objection := gate_objection(totals):
            raise Refused(objection)
        return None
    if run.sweep is not None:
        planned = sweep_plan(
            project=project,
            base=configs[0],
            trials=configs,
            max_hours=run.sweep.max_hours,
            totals=totals,
        )
        objections, forecast = planned.example_objections, planned.forecast_json()
    else:
        plan = run_plan(project=project, config=configs[0], totals=totals, beside_others=True)
        objections, forecast = plan.example_objections, plan.forecast_json()
    if objections:
        raise Refused(" ".join(objections))
    return forecast


def runs_fail(claim: SnapshotClaim, why: str) -> None:
    """End the runs that wait for a snapshot which is not taken, and give the claim back."""
    with transaction.atomic():
        if not claim.update(status=Snapshot.Status.QUEUED, attempt=0):
            return
        for run in waiting_runs(claim.row):
            failed = Run.objects.filter(pk=run.pk, status=Run.Status.QUEUED).update(
                status=Run.Status.FAILED, error=why, finished_at=timezone.now()
            )
            if not failed:
                continue
            services.run_note(run=run, text=why, level=RunNote.Level.ERROR)
            if run.evaluates:
                services.run_event_write(run, status=Run.Status.FAILED, error=why)
    log.info("snapshot_refused", snapshot=claim.row.pk, why=why)
