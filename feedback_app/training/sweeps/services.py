"""Services of sweeps."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from django.db import IntegrityError, transaction
from django.db.models import Max
from django.urls import reverse
from django.utils import timezone

from feedback_app.accounts.audit import audit
from feedback_app.accounts.models import User
from feedback_app.feedback.models import NotificationKind, Project
from feedback_app.feedback.notifications.services import notify
from feedback_app.training.models import Run, Snapshot, Sweep
from feedback_app.training.runs.config import RunConfig, chat_settings
from feedback_app.training.runs.services import run_cancel, run_note, start_adapter_of
from feedback_app.training.snapshots.caps import people_cap, snapshot_totals
from feedback_app.training.snapshots.services import (
    snapshot_freeze,
    snapshot_queue,
    taken_at_once,
)
from feedback_app.training.sweeps.hours import hours_spent
from feedback_app.training.sweeps.plan import sweep_plan, sweep_request_objections
from feedback_app.training.sweeps.selectors import trial_chosen
from feedback_app.training.sweeps.space import MOST_TRIALS, Space, space_json, trials_of
from feedback_app.web.errors import UserError
from feedback_app.web.log_context import request_id

log = structlog.get_logger(__name__)

HOURS = (0.1, 720.0)


@dataclass(frozen=True)
class Search:
    """How a sweep searches: `trials` and `seed` are those of a random search, `at_once` is how many
    trials train at the same time."""

    space: Space
    method: str = Sweep.Method.GRID
    trials: int = 8
    seed: int = 0
    early_stopping: bool = True
    max_hours: float = 8.0
    at_once: int = 1

    def __post_init__(self) -> None:
        if not HOURS[0] <= self.max_hours <= HOURS[1]:
            raise UserError(f"Worker hours: choose {HOURS[0]:g} to {HOURS[1]:g}.")
        if not 1 <= self.at_once <= MOST_TRIALS:
            raise UserError(f"Trials at once: choose 1 to {MOST_TRIALS}.")

    def configs(self, base: RunConfig) -> list[RunConfig]:
        """Return the settings of every trial. Raises UserError."""
        return trials_of(base, self.space, method=self.method, trials=self.trials, seed=self.seed)


def sweep_request(*, project: Project, by: User | None, base: RunConfig, search: Search) -> Sweep:
    """Take one snapshot of the examples and queue a trial on it for each combination of settings.

    Of a large project a worker takes it. Raises UserError with every objection, before anything is
    stored.
    """
    configs = search.configs(base)
    try:
        with transaction.atomic():
            project = Project.objects.select_for_update(no_key=True).get(pk=project.pk)
            snapshot, forecast = sweep_snapshot(project, base, configs, search.max_hours)
            last = project.sweeps.aggregate(last=Max("number"))["last"] or 0
            sweep = Sweep.objects.create(
                project=project,
                number=last + 1,
                snapshot=snapshot,
                method=search.method,
                space=space_json(search.space),
                seed=search.seed,
                early_stopping=search.early_stopping,
                max_hours=search.max_hours,
                at_once=search.at_once,
                forecast=forecast,
                requested_by=by,
            )
            trials_queue(sweep, configs, start=start_adapter_of(project, base))
            audit(
                project=project,
                actor=by,
                action="sweep.request",
                target=f"{sweep}: {len(configs)} trials",
            )
    except IntegrityError as error:
        raise UserError("Another sweep or run was started just now: try again.") from error
    log.info("sweep_requested", sweep=sweep.pk, trials=len(configs), project=project.slug)
    return sweep


def sweep_snapshot(
    project: Project, base: RunConfig, trials: Sequence[RunConfig], max_hours: float
) -> tuple[Snapshot, dict[str, Any]]:
    """Return the snapshot of a new sweep and its forecast; of a large project a snapshot that a
    worker takes, which makes the forecast then. Raises UserError with every objection."""
    if not taken_at_once(project):
        if objections := sweep_request_objections(project, base):
            raise UserError(" ".join(objections))
        return snapshot_queue(project), {}
    cap = people_cap(project)
    totals = snapshot_totals(project, cap)
    plan = sweep_plan(project=project, base=base, trials=trials, max_hours=max_hours, totals=totals)
    if plan.objections:
        raise UserError(" ".join(plan.objections))
    return snapshot_freeze(project=project, cap=cap, totals=totals), plan.forecast_json()


def trials_queue(sweep: Sweep, configs: Sequence[RunConfig], *, start: str | None) -> None:
    """Queue the trials of a sweep, in order. Call it in the transaction that creates it."""
    last = sweep.project.runs.aggregate(last=Max("number"))["last"] or 0
    Run.objects.bulk_create(
        Run(
            project=sweep.project,
            number=number,
            snapshot=sweep.snapshot,
            sweep=sweep,
            evaluates=False,
            config=config.as_json(start_adapter=start) | chat_settings(sweep.project),
            trigger=Run.Trigger.SWEEP,
            requested_by=sweep.requested_by,
            request_id=request_id(),
        )
        for number, config in enumerate(configs, last + 1)
    )


def sweep_cancel(*, sweep: Sweep, by: User | None) -> None:
    """Cancel the waiting and running trials; finished ones stay. Raises UserError if it has ended
    or is being cancelled."""
    with transaction.atomic():
        still = Sweep.objects.filter(pk=sweep.pk, ended_at=None, cancelled_at=None)
        if not still.update(cancelled_at=timezone.now()):
            raise UserError(f"{sweep} has already ended or is being cancelled.")
        audit(project=sweep.project, actor=by, action="sweep.cancel", target=str(sweep))
        waiting_cancel(sweep, f"{sweep} was cancelled.")
        for trial in sweep.trials.active().select_related("project"):
            run_cancel(run=trial, by=by)
    sweep_end(sweep)


def waiting_cancel(sweep: Sweep, why: str) -> int:
    """Cancel the trials that wait for a worker; return how many. Call it in a transaction."""
    waiting = list(sweep.trials.select_for_update().filter(status=Run.Status.QUEUED))
    for trial in waiting:
        run_note(run=trial, text=why)
    return sweep.trials.filter(
        pk__in=[trial.pk for trial in waiting], status=Run.Status.QUEUED
    ).update(status=Run.Status.CANCELLED, finished_at=timezone.now(), cancel_requested=True)


def trial_choose(*, sweep: Sweep, run: Run, by: User) -> None:
    """Queue a trained trial for the gate: from then on it is a run like any other.

    Raises UserError while trials go on, if it is not trained, or if another one was chosen: the
    better of two at the gate would be chosen by the test split.
    """
    chosen = trial_chosen(sweep)
    if chosen is not None:
        raise UserError(
            f"{chosen} of this sweep was chosen: judging several by the gate would choose by the "
            "test examples. Start a new run with the settings of another one."
        )
    if sweep.ended_at is None:
        raise UserError(f"{sweep} is in progress: wait for its end or cancel it.")
    try:
        with transaction.atomic():
            trained = sweep.trials.filter(
                pk=run.pk,
                status=Run.Status.TRAINED,
                probes__isnull=False,
                adapter_deleted_at=None,
            )
            if not trained.update(
                status=Run.Status.QUEUED,
                evaluates=True,
                requested_by=by,
                request_id=request_id(),
                dispatched_at=None,
                started_at=None,
                finished_at=None,
            ):
                if run.adapter_deleted_at is not None:
                    raise UserError(
                        f"The adapter of {run} was deleted some time after its sweep had ended. "
                        "Start a new run with its settings."
                    )
                raise UserError(f"{run} is not trained: the gate has nothing to judge.")
            run_note(run=run, text=f"Chosen from {sweep} for the gate")
            audit(project=sweep.project, actor=by, action="sweep.choose", target=f"{sweep}: {run}")
    except IntegrityError as error:
        raise UserError("Another run is in progress: wait for it or cancel it.") from error


def sweeps_advance() -> None:
    """End the sweeps whose trials have ended, and those that have had their hours. Called by every
    tick; rows say what there is to do."""
    for sweep in Sweep.objects.filter(ended_at=None).select_related("project"):
        if hours_spent(sweep) >= sweep.max_hours:
            why = f"{sweep} has had its {sweep.max_hours:g} worker hours."
            with transaction.atomic():
                waiting_cancel(sweep, why)
        sweep_end(sweep)


def sweep_end(sweep: Sweep) -> None:
    """End a sweep and notify the project's admins, unless it has active trials."""
    with transaction.atomic():
        if sweep.trials.active().exists():
            return
        if not Sweep.objects.filter(pk=sweep.pk, ended_at=None).update(ended_at=timezone.now()):
            return
        sweep.refresh_from_db(fields=["cancelled_at"])
        if sweep.cancelled_at is None:
            notify(
                project=sweep.project,
                kind=NotificationKind.RUN_FINISHED,
                key=f"sweep:{sweep.pk}",
                text=f"{sweep} has ended: its trials are compared on validation examples.",
                path=reverse("sweep", args=[sweep.project.slug, sweep.number]),
            )
    log.info("sweep_ended", sweep=sweep.pk, project=sweep.project.slug)
