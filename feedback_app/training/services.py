"""What can happen to runs, adapters and schedules."""

import datetime as dt
from collections.abc import Mapping
from typing import Any

import structlog
from django.db import IntegrityError, transaction
from django.db.models import Max
from django.utils import timezone

from feedback_app.accounts.models import User
from feedback_app.feedback.errors import BadRequest
from feedback_app.feedback.models import Example, Project
from feedback_app.feedback.models_webhook import Event
from feedback_app.feedback.services import audit
from feedback_app.feedback.services_queue import completions_doubt
from feedback_app.feedback.webhooks.events import event_write
from feedback_app.training.claims import Claim
from feedback_app.training.defaults import RunConfig
from feedback_app.training.gate import gate_decide
from feedback_app.training.models import (
    Adapter,
    Run,
    RunNote,
    Schedule,
    Snapshot,
    SnapshotItem,
)
from feedback_app.training.plan import run_plan
from feedback_app.training.snapshot_people import people_cap

log = structlog.get_logger(__name__)


def run_request(
    *,
    project: Project,
    by: User | None,
    config: RunConfig | None = None,
    trigger: Run.Trigger = Run.Trigger.PERSON,
    auto_release: bool = False,
) -> Run:
    """Freezes the examples into a snapshot and queues a run; the work queue takes it from here.

    Raises BadRequest with every objection that the Train page shows.
    """
    config = config or RunConfig()
    try:
        with transaction.atomic():
            # one request at a time: the plan must still hold when the run is written
            project = Project.objects.select_for_update().get(pk=project.pk)
            plan = run_plan(project=project, config=config.as_json(), exact=True)
            if plan.objections:
                raise BadRequest(" ".join(plan.objections))
            last = project.runs.aggregate(last=Max("number"))["last"] or 0
            run = Run.objects.create(
                project=project,
                number=last + 1,
                snapshot=snapshot_freeze(project=project),
                config=config.as_json(),
                trigger=trigger,
                requested_by=by,
                auto_release=auto_release,
            )
            audit(project=project, actor=by, action="run.request", target=str(run))
    except IntegrityError as error:
        raise BadRequest("Another run was started just now: see the list of runs.") from error
    return run


def snapshot_freeze(*, project: Project) -> Snapshot:
    """Copies every example as it is now, with at most so many votes of one person as the project
    takes. Call it in the transaction that makes the run."""
    cap = people_cap(project)
    snapshot = Snapshot.objects.create(
        project=project,
        left_out=cap.left_out,
        left_out_people=cap.people,
        **cap.counts(project.examples.counts()),
    )
    examples = project.examples.order_by("pk").iterator(chunk_size=2_000)
    SnapshotItem.objects.bulk_create(
        (
            SnapshotItem(
                snapshot=snapshot,
                completion_id=example.pk,
                desirable=amounts.desirable,
                weight=amounts.weight,
                split=example.split,
            )
            for example in examples
            if (amounts := cap.examples.get(example.pk, example)) is not None
        ),
        batch_size=1_000,
    )
    return snapshot


def run_cancel(*, run: Run, by: User | None) -> None:
    """A waiting run ends at once; a working one checkpoints first and then ends."""
    with transaction.atomic():
        changed = Run.objects.filter(pk=run.pk, status=Run.Status.QUEUED).update(
            status=Run.Status.CANCELLED, finished_at=timezone.now(), cancel_requested=True
        ) or Run.objects.filter(pk=run.pk, status__in=Run.WORKING).update(cancel_requested=True)
        if not changed:
            raise BadRequest(f"{run} has already ended.")
        audit(project=run.project, actor=by, action="run.cancel", target=str(run))
        if Run.objects.filter(pk=run.pk, status=Run.Status.CANCELLED).exists():
            run_told(run, status=Run.Status.CANCELLED)


def run_resume(*, run: Run, by: User) -> None:
    """Puts a failed or cancelled run back into the queue; it goes on from its last checkpoint."""
    try:
        with transaction.atomic():
            changed = Run.objects.filter(
                pk=run.pk, status__in=[Run.Status.FAILED, Run.Status.CANCELLED]
            ).update(
                status=Run.Status.QUEUED,
                cancel_requested=False,
                error="",
                dispatched_at=None,
                finished_at=None,
            )
            if not changed:
                raise BadRequest(f"{run} is not at rest: it cannot be resumed.")
            audit(project=run.project, actor=by, action="run.resume", target=str(run))
    except IntegrityError as error:
        raise BadRequest("Another run is in progress: wait for it or cancel it.") from error


def run_note(*, run: Run, text: str, level: RunNote.Level = RunNote.Level.INFO) -> None:
    """Adds a line to the run's log."""
    RunNote.objects.create(run=run, text=text, level=level)


def run_requeue(*, claim: Claim, why: str) -> None:
    """The worker stops but the run is not at fault: the next worker goes on with it."""
    with transaction.atomic():
        if claim.update(status=Run.Status.QUEUED, dispatched_at=None):
            run_note(run=claim.run, text=why, level=RunNote.Level.WARNING)


def run_end(*, claim: Claim, status: Run.Status, error: str = "") -> None:
    """A terminal state without an adapter."""
    with transaction.atomic():
        ended = claim.update(
            status=status, error=error, finished_at=timezone.now(), eta_seconds=None
        )
        if ended and error:
            run_note(run=claim.run, text=error, level=RunNote.Level.ERROR)
        if ended:
            run_told(claim.run, status=status, error=error)


def run_told(
    run: Run, *, status: Run.Status, error: str = "", adapter: Adapter | None = None
) -> None:
    """Tells the webhooks that a run has ended. Call it in the transaction that ends it."""
    event_write(
        project=run.project,
        event=Event.RUN_FINISHED,
        # a run that is resumed ends again, at another attempt or time
        key=f"{run.pk}:{timezone.now().timestamp():.6f}",
        data={
            "number": run.number,
            "status": status,
            "error": error,
            "adapter": adapter.name if adapter else None,
            "gate_won": adapter.gate_won if adapter else None,
        },
    )


def run_finish(
    *,
    claim: Claim,
    path: str,
    sha256: str,
    report: Mapping[str, Any],
    fit: Mapping[int, tuple[float, float]],
) -> Adapter | None:
    """Registers the adapter and its gate report, and ends the run, all in one transaction.

    `fit` maps completion ids to (reward, z0) of the last epoch. Returns None if the claim was
    lost to another worker, which then registers it.
    """
    run = claim.run
    name = run.project.adapter_name(run.number)
    live = next((key for key in report["candidates"] if key not in (name, "base")), "base")
    gate = gate_decide(report, candidate=name, live=live)
    with transaction.atomic():
        if not claim.update(
            status=Run.Status.SUCCEEDED, finished_at=timezone.now(), eta_seconds=None
        ):
            return None
        adapter, _ = Adapter.objects.get_or_create(
            run=run,
            defaults={
                "project": run.project,
                "name": name,
                "path": path,
                "sha256": sha256,
                "report": dict(report),
                "gate": gate.as_json(),
                "gate_won": gate.won,
            },
        )
        items = list(run.snapshot.items.filter(completion_id__in=fit.keys()))
        for item in items:
            item.reward, item.reference_point = fit[item.completion_id]
        SnapshotItem.objects.bulk_update(items, ["reward", "reference_point"], batch_size=500)
        Example.objects.filter(
            completion__snapshot_items__snapshot=run.snapshot, split="train"
        ).update(used_in_run=run.number)
        run_note(run=run, text=f"{name} is ready. " + gate_sentence(gate.won, gate.faults))
        run_told(run, status=Run.Status.SUCCEEDED, adapter=adapter)
    # many rows, and only an order of the queue: not in the transaction that ends the run
    completions_doubt(project=run.project, fit=fit)
    return adapter


def gate_sentence(won: bool, faults: list[str]) -> str:
    """The gate's verdict in words."""
    if won:
        return "It won the gate and may go live."
    return "It did not win the gate: " + "; ".join(faults) + "."


def adapter_discard(*, adapter: Adapter, by: User) -> None:
    """Takes a version out of the lists; what is live cannot be discarded."""
    if adapter.project.live_version == adapter.name:
        raise BadRequest(f"{adapter.name} is live: release another version first.")
    with transaction.atomic():
        Adapter.objects.filter(pk=adapter.pk).update(discarded_at=timezone.now())
        audit(project=adapter.project, actor=by, action="adapter.discard", target=adapter.name)


def adapter_restore(*, adapter: Adapter, by: User) -> None:
    """Undoes a discard: files are kept, so nothing was lost."""
    with transaction.atomic():
        Adapter.objects.filter(pk=adapter.pk).update(discarded_at=None)
        audit(project=adapter.project, actor=by, action="adapter.restore", target=adapter.name)


# -- the schedule


def schedule_set(
    *,
    project: Project,
    by: User,
    enabled: bool,
    min_new_examples: int,
    min_hours: float,
    auto_release: bool,
) -> Schedule:
    """Sets when runs start by themselves."""
    if not 1 <= min_new_examples <= 1_000_000 or not 0 <= min_hours <= 24 * 365:
        raise BadRequest("Train after at least 1 new example, and at most every 0 to 8,760 hours.")
    with transaction.atomic():
        schedule, _ = Schedule.objects.update_or_create(
            project=project,
            defaults={
                "enabled": enabled,
                "min_new_examples": min_new_examples,
                "min_hours": min_hours,
                "auto_release": auto_release,
            },
        )
        audit(
            project=project,
            actor=by,
            action="schedule.set",
            target=f"{'on' if enabled else 'off'}: {min_new_examples} examples, {min_hours:g} h",
        )
    return schedule


def schedule_due(*, schedule: Schedule, now: dt.datetime | None = None) -> bool:
    """Whether enough has come in since the last run, and long enough ago.

    Counted from the last run that was started for whatever reason, so that a failing snapshot
    is not tried again at every tick.
    """
    now = now or timezone.now()
    if not schedule.enabled:
        return False
    last = schedule.project.runs.newest_first().first()
    fresh = schedule.project.examples.all()
    if last is not None:
        if last.active or now - last.created_at < dt.timedelta(hours=schedule.min_hours):
            return False
        fresh = fresh.filter(created_at__gt=last.created_at)
    return fresh.count() >= schedule.min_new_examples


def schedules_run(*, now: dt.datetime | None = None) -> list[Run]:
    """Starts what is due. Two beats at once start one run: the database allows one active run."""
    started = []
    for schedule in Schedule.objects.filter(enabled=True).select_related("project"):
        if not schedule_due(schedule=schedule, now=now):
            continue
        try:
            started.append(
                run_request(
                    project=schedule.project,
                    by=None,
                    trigger=Run.Trigger.SCHEDULE,
                    auto_release=schedule.auto_release,
                )
            )
        except BadRequest as objection:
            log.info("schedule_waits", project=schedule.project.slug, why=str(objection))
    return started
