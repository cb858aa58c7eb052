"""Services of runs."""

from collections.abc import Mapping
from typing import Any

import structlog
from django.db import IntegrityError, transaction
from django.db.models import Max
from django.urls import reverse
from django.utils import timezone

from feedback_app.accounts.audit import audit
from feedback_app.accounts.models import User
from feedback_app.feedback.examples.services import examples_mark_used
from feedback_app.feedback.models import Completion, NotificationKind, Project, Split
from feedback_app.feedback.models.webhooks import Event
from feedback_app.feedback.notifications.services import notify
from feedback_app.feedback.queue.services import uncertainty_store
from feedback_app.feedback.webhooks.events import event_write
from feedback_app.training.forgetting.gate_reports import report_of_present
from feedback_app.training.gate.people.services import (
    batch_begin,
    report_with_people,
    report_without_people,
)
from feedback_app.training.gate.services import gate_of_report, gate_settings, people_of
from feedback_app.training.models import (
    Adapter,
    GateOutcome,
    Run,
    RunNote,
    Snapshot,
    SnapshotItem,
)
from feedback_app.training.runs.claims import RunClaim
from feedback_app.training.runs.config import RunConfig, chat_settings
from feedback_app.training.runs.fit import fit_of_rows
from feedback_app.training.runs.planning.objections import live_adapter, request_objections
from feedback_app.training.runs.planning.plan import run_plan
from feedback_app.training.runs.presets import BY_KEY, preset_config
from feedback_app.training.runs.settings import LIVE
from feedback_app.training.snapshots.caps import people_cap, snapshot_totals
from feedback_app.training.snapshots.services import (
    snapshot_freeze,
    snapshot_queue,
    taken_at_once,
)
from feedback_app.web.errors import UserError
from feedback_app.web.log_context import request_id

log = structlog.get_logger(__name__)

#: What the log of a run says each time that a person has resumed it.
RESUMED = "Resumed"


def run_request(
    *,
    project: Project,
    by: User | None,
    config: RunConfig | None = None,
    trigger: Run.Trigger = Run.Trigger.PERSON,
    auto_release: bool = False,
) -> Run:
    """Take a snapshot of the examples and queue a run; without a config, with the settings that the
    form of the Train page begins with.

    Of a large project a worker takes the snapshot (runs/execution/taking.py), so that the request
    is short; the run fails if the examples turn out to be too few. Raises UserError with every
    other objection that the Train page shows.
    """
    config = config or preset_config(BY_KEY["default"], project.base_model)
    try:
        with transaction.atomic():
            # One request at a time: the plan must still be valid when the run is created. Votes
            # refer to the project, and need not wait for this lock (FOR NO KEY UPDATE).
            project = Project.objects.select_for_update(no_key=True).get(pk=project.pk)
            snapshot, forecast = run_snapshot(project, config)
            last = project.runs.aggregate(last=Max("number"))["last"] or 0
            run = Run.objects.create(
                project=project,
                number=last + 1,
                snapshot=snapshot,
                config=config.as_json(start_adapter=start_adapter_of(project, config))
                | chat_settings(project),
                forecast=forecast,
                trigger=trigger,
                requested_by=by,
                auto_release=auto_release,
                request_id=request_id(),
            )
            audit(project=project, actor=by, action="run.request", target=str(run))
    except IntegrityError as error:
        raise UserError("Another run was started just now: see the list of runs.") from error
    log.info("run_requested", run=run.pk, number=run.number, project=project.slug)
    return run


def run_snapshot(project: Project, config: RunConfig) -> tuple[Snapshot, dict[str, Any] | None]:
    """Return the snapshot of a new run and its forecast; of a large project a snapshot that a
    worker takes, which makes the forecast then. Raises UserError with every objection."""
    if not taken_at_once(project):
        if objections := request_objections(project, config):
            raise UserError(" ".join(objections))
        return snapshot_queue(project), None
    cap = people_cap(project)
    totals = snapshot_totals(project, cap)
    plan = run_plan(project=project, config=config, totals=totals)
    if plan.objections:
        raise UserError(" ".join(plan.objections))
    return snapshot_freeze(project=project, cap=cap, totals=totals), plan.forecast_json()


def start_adapter_of(project: Project, config: RunConfig) -> str | None:
    """Return the directory of the live version as seen from a run's (Run.directory), if the run
    starts from it: a version that goes live later changes nothing for this run."""
    if config.start_from != LIVE:
        return None
    adapter = live_adapter(project)
    if adapter is None:  # the plan has said so
        raise UserError("No version is live: start from the base model.")
    return f"../../{adapter.path}"


def run_cancel(*, run: Run, by: User | None) -> None:
    """Cancel a run: a waiting run ends at once, a running one writes a checkpoint first."""
    with transaction.atomic():
        changed = Run.objects.filter(pk=run.pk, status=Run.Status.QUEUED).update(
            status=Run.Status.CANCELLED, finished_at=timezone.now(), cancel_requested=True
        ) or Run.objects.filter(pk=run.pk, status__in=Run.WORKING).update(cancel_requested=True)
        if not changed:
            raise UserError(f"{run} has already ended.")
        audit(project=run.project, actor=by, action="run.cancel", target=str(run))
        if run.evaluates and Run.objects.filter(pk=run.pk, status=Run.Status.CANCELLED).exists():
            run_event_write(run, status=Run.Status.CANCELLED)


def run_resume(*, run: Run, by: User) -> None:
    """Queue a failed or cancelled run again; it resumes from its last checkpoint, if it has one.

    Raises UserError for a run that has not ended, or whose settings would fail again.
    """
    try:
        with transaction.atomic():
            changed = Run.objects.filter(
                pk=run.pk, status__in=[Run.Status.FAILED, Run.Status.CANCELLED], resumable=True
            ).update(
                status=Run.Status.QUEUED,
                cancel_requested=False,
                error="",
                request_id=request_id(),
                dispatched_at=None,
                # the time between the attempts is no worker's (runs/waiting.py)
                started_at=None,
                finished_at=None,
            )
            if not changed:
                if Run.objects.filter(pk=run.pk, resumable=False).exists():
                    raise UserError(
                        f"{run} would fail again with the same settings: start a new run with "
                        "other settings."
                    )
                raise UserError(f"{run} is neither failed nor cancelled: it cannot be resumed.")
            run_note(run=run, text=RESUMED)
            audit(project=run.project, actor=by, action="run.resume", target=str(run))
    except IntegrityError as error:
        raise UserError("Another run is in progress: wait for it or cancel it.") from error
    log.info("run_resumed", run=run.pk, number=run.number)


def run_note(*, run: Run, text: str, level: RunNote.Level = RunNote.Level.INFO) -> None:
    """Add a line to the run's log."""
    RunNote.objects.create(run=run, text=text, level=level)


def run_requeue(*, claim: RunClaim, why: str) -> None:
    """Queue the run again after its worker was stopped; another worker resumes it."""
    with transaction.atomic():
        if claim.update(status=Run.Status.QUEUED, dispatched_at=None):
            run_note(run=claim.row, text=why, level=RunNote.Level.WARNING)


def run_end(
    *, claim: RunClaim, status: Run.Status, error: str = "", resumable: bool = True
) -> None:
    """Set a final state without an adapter. `resumable`: whether another attempt may succeed.

    The end of a trial is no event: its sweep notifies when all have ended.
    """
    with transaction.atomic():
        ended = claim.update(
            status=status,
            error=error,
            resumable=resumable,
            finished_at=timezone.now(),
            eta_seconds=None,
        )
        if ended and error:
            run_note(run=claim.row, text=error, level=RunNote.Level.ERROR)
        if ended and claim.row.evaluates:
            run_event_write(claim.row, status=status, error=error)


def run_event_write(
    run: Run, *, status: Run.Status, error: str = "", adapter: Adapter | None = None
) -> None:
    """Tell webhooks and admins that a run has ended. Call it in the transaction that ends it."""
    run_notify(run, status=status, error=error, adapter=adapter)
    event_write(
        project=run.project,
        event=Event.RUN_FINISHED,
        # a resumed run ends again, at another time
        key=f"{run.pk}:{timezone.now().timestamp():.6f}",
        data={
            "number": run.number,
            "status": status,
            "error": error,
            "adapter": adapter.name if adapter else None,
            "gate_won": adapter.gate_won if adapter else None,
            "gate_outcome": adapter.gate_outcome if adapter else None,
        },
    )


def run_notify(run: Run, *, status: Run.Status, error: str, adapter: Adapter | None) -> None:
    """Notify the project's admins of a run's end, unless it was cancelled."""
    key = f"{run.pk}:{timezone.now().timestamp():.6f}"
    path = reverse("run", args=[run.project.slug, run.number])
    if status == Run.Status.FAILED:
        text = f"{run} failed. {error}"
        notify(project=run.project, kind=NotificationKind.RUN_FAILED, key=key, text=text, path=path)
    if adapter is None:
        return
    text = f"{run} has made {adapter.name}."
    notify(project=run.project, kind=NotificationKind.RUN_FINISHED, key=key, text=text, path=path)
    kind = NotificationKind.GATE_PASSED if adapter.gate_won else NotificationKind.GATE_FAILED
    text = f"{adapter.name}: {adapter.gate['sentence']}"
    notify(project=run.project, kind=kind, key=key, text=text, path=path)


def run_finish(
    *,
    claim: RunClaim,
    path: str,
    sha256: str,
    report: Mapping[str, Any],
    fit: Mapping[int, tuple[float, float]],
) -> Adapter | None:
    """Register the adapter with its gate report and end the run, in one transaction.

    `fit` maps completion ids to (reward, z0) of the last epoch. Returns None if the claim is lost:
    the other worker registers it.
    """
    run = claim.row
    name = run.project.adapter_name(run.number)
    settings, people = gate_settings(run.project), people_of(run.snapshot)
    report = report_with_people(report, settings, project=run.project, candidate=name)
    gate = gate_of_report(report, settings, candidate=name, people=people)
    if settings.primary == "people" and gate.outcome == GateOutcome.FAILED:
        report = report_without_people(report)
        gate = gate_of_report(report, settings, candidate=name, people=people)
    with transaction.atomic():
        Project.objects.select_for_update(no_key=True).get(pk=run.project_id)
        if not claim.update(
            status=Run.Status.SUCCEEDED, finished_at=timezone.now(), eta_seconds=None
        ):
            return None
        report = report_of_present(run, report)
        adapter, created = Adapter.objects.get_or_create(
            run=run,
            defaults={
                "project": run.project,
                "name": name,
                "path": path,
                "sha256": sha256,
                "report": report,
                "gate": gate.as_json(),
                "gate_outcome": gate.outcome,
                "gate_won": gate.won,
            },
        )
        if created:
            batch_begin(adapter=adapter, gate=gate)
        # the trainer reports training examples only; misfits, value curve and uncertainty must
        # not show how the model does on others
        training = run.snapshot.items.filter(split=Split.TRAIN)
        items = list(training.filter(completion_id__in=fit.keys()))
        for item in items:
            item.reward, item.reference_point = reward, point = fit[item.completion_id]
            item.margin = reward - point if item.desirable else point - reward
        fields = ["reward", "reference_point", "margin"]
        SnapshotItem.objects.bulk_update(items, fields, batch_size=500)
        fit_rows = ((i.pk, *fit[i.completion_id], i.desirable) for i in items)
        Run.objects.filter(pk=run.pk).update(fit=fit_of_rows(fit_rows).as_json())
        if run.trains:
            used = Completion.objects.filter(snapshot_items__snapshot=run.snapshot)
            examples_mark_used(used, run=run.number)
        run_note(run=run, text=f"{name} is ready. " + gate.sentence)
        run_event_write(run, status=Run.Status.SUCCEEDED, adapter=adapter)
    # many rows that only order the queue: not in the transaction that ends the run
    uncertainty_store(
        project=run.project, fit={item.completion_id: fit[item.completion_id] for item in items}
    )
    return adapter
