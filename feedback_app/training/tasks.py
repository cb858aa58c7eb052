"""Celery tasks of training. Rows say what there is to do: a message that is delivered twice finds
nothing to do, or what is next."""

import datetime as dt

from celery import shared_task
from django.conf import settings
from django.db.models import Q
from django.utils import timezone
from structlog.contextvars import bound_contextvars

from feedback_app.feedback.figures.services import figures_count, figures_due
from feedback_app.training.gate.people.decision import batch_decide, batches_end
from feedback_app.training.influence.services import influence_claim, influence_execute
from feedback_app.training.launchers.selection import launcher_selected
from feedback_app.training.models import InfluenceReport, PairBatch, Run, VersionPush
from feedback_app.training.pushes.hub import hub_here
from feedback_app.training.pushes.services import push_execute
from feedback_app.training.runs.claims import startable
from feedback_app.training.runs.execution.sequence import run_execute
from feedback_app.training.runs.execution.taking import snapshot_take, snapshots_due
from feedback_app.training.runs.planning.measuring import memory_due, memory_measure
from feedback_app.training.runs.waiting import run_claim_next, trials_held
from feedback_app.training.schedules.services import schedules_run
from feedback_app.training.snapshots import figures
from feedback_app.training.snapshots.content import services as content
from feedback_app.training.sweeps.services import sweeps_advance
from feedback_app.web import log_context

#: A message that no worker has taken for this long may be lost with the broker: send another.
RESEND = settings.RUN_STALE_SECONDS / 2
#: A message about figures that no worker took by then is sent again by a later tick.
EXPIRES = 10


@shared_task(name="training.dispatch")
def dispatch() -> None:
    """Start scheduled runs and send waiting or abandoned runs to a worker, every few seconds."""
    schedules_run()
    sweeps_advance()
    for pk in snapshots_due().values_list("pk", flat=True):
        take_snapshot.apply_async((pk,), expires=EXPIRES)

    now = timezone.now()
    unsent = Q(dispatched_at=None) | Q(dispatched_at__lt=now - dt.timedelta(seconds=RESEND))
    # a trial without a place is sent when one is free: its message would wake a worker for nothing
    unsent_runs = startable(Run.objects.filter(Run.claimable(), unsent))
    waiting = unsent_runs.exclude(pk__in=trials_held())
    for run_id, request_id in waiting.values_list("pk", "request_id"):
        Run.objects.filter(pk=run_id).update(dispatched_at=now)
        # the run's own request, not this tick
        train_run.apply_async((run_id,), expires=RESEND, headers={"request_id": request_id})

    reports = InfluenceReport.objects.filter(InfluenceReport.claimable(), unsent)
    for pk in reports.values_list("pk", flat=True):
        InfluenceReport.objects.filter(pk=pk).update(dispatched_at=now)
        measure_influence.apply_async((pk,), expires=RESEND)

    for push in VersionPush.objects.filter(VersionPush.claimable(), unsent):
        VersionPush.objects.filter(pk=push.pk).update(dispatched_at=now)
        # the image without torch has no library of the hub
        queue = "gpu" if push.destination.startswith("hf://") and not hub_here() else "default"
        push_version.apply_async((push.pk,), expires=RESEND, queue=queue)

    batches_end()
    for pk in PairBatch.objects.undecided().values_list("pk", flat=True):
        decide_pairs.apply_async((pk,), expires=EXPIRES)

    for pk in figures_due(figures.NAME).values_list("pk", flat=True):
        count_figures.apply_async((pk,), expires=EXPIRES)
    for pk in figures_due(content.NAME).values_list("pk", flat=True):
        count_content.apply_async((pk,), expires=EXPIRES)
    for pk in memory_due(resend=RESEND):
        measure_memory.apply_async((pk,), expires=RESEND)


@shared_task(name="training.take_snapshot")
def take_snapshot(pk: int) -> None:
    """Take the snapshot that a queued run waits for."""
    snapshot_take(pk)


@shared_task(name="training.count_figures")
def count_figures(pk: int) -> None:
    """Count what a snapshot of a large project would take."""
    figures_count(pk=pk, count=figures.snapshot_count)


@shared_task(name="training.count_content")
def count_content(pk: int) -> None:
    """Read what the next snapshot of a project contains."""
    figures_count(pk=pk, count=content.content_count)


@shared_task(name="training.measure_memory")
def measure_memory(pk: int) -> None:
    """Measure what the memory of a project's runs depends on."""
    figures_count(pk=pk, count=memory_measure)


@shared_task(name="training.decide_pairs")
def decide_pairs(batch_id: int) -> None:
    """Decide the gate again, after people have judged a version's pairs."""
    batch_decide(batch_id)


@shared_task(name="training.push_version")
def push_version(adapter_id: int) -> None:
    """Send the files of a version to another place."""
    push_execute(adapter_id)


@shared_task(name="training.measure_influence")
def measure_influence(adapter_id: int) -> None:
    """Measure the influence of votes on a version."""
    claim = influence_claim(adapter_id)
    if claim is not None:
        influence_execute(claim, launcher_selected(claim.row.adapter.project))


@shared_task(name="training.train_run")
def train_run(run_id: int) -> None:
    """Execute the run that is next. The message says that run `run_id` waits: it may be another's
    turn, whose message then wakes a worker for this one."""
    claim = run_claim_next()
    if claim is None:
        return
    # the run's own request, not that of the message's run
    with bound_contextvars(request_id=claim.row.request_id or log_context.request_id()):
        run_execute(claim, launcher_selected(claim.row.project))
