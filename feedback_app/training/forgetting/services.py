"""Retraining a version without what was erased, and locking and deleting the ones with it."""

from collections.abc import Iterable

import structlog
from django.db import IntegrityError, transaction
from django.db.models import Max
from django.utils import timezone

from feedback_app.accounts.audit import audit
from feedback_app.feedback.models import Project
from feedback_app.training.models import Adapter, InfluenceReport, Run, Snapshot, SnapshotItem
from feedback_app.training.registry.files import run_files_remove
from feedback_app.training.runs.planning.objections import MIN_TEST_PER_CLASS, loss_objections
from feedback_app.training.snapshots.services import snapshot_copy
from feedback_app.web.errors import UserError
from feedback_app.web.log_context import request_id
from feedback_app.web.text.plurals import number_of

log = structlog.get_logger(__name__)

#: Why a version was locked and deleted, in the audit trail.
LEARNED = "It had learned from what was erased."


def run_retrain(*, run: Run, start: Adapter | None, release: bool) -> Run:
    """Queue a run again on its snapshot as it is now: with the same settings and seed.

    `start` replaces the version that the run was started from; None keeps it. With `release` the
    new version goes live when it passes the gate. Raises UserError if too few examples are left or
    another run is active.
    """
    try:
        with transaction.atomic():
            project = Project.objects.select_for_update(no_key=True).get(pk=run.project_id)
            snapshot = snapshot_copy(run.snapshot)
            if objections := retraining_objections(run, snapshot):
                raise UserError(" ".join(objections))
            last = project.runs.aggregate(last=Max("number"))["last"] or 0
            config = run.config | ({"start_adapter": f"../../{start.path}"} if start else {})
            again = Run.objects.create(
                project=project,
                number=last + 1,
                snapshot=snapshot,
                retrains=run,
                config=config,
                trigger=Run.Trigger.ERASURE,
                auto_release=release,
                request_id=request_id(),
            )
            reason = f"{run} again, without what was erased since."
            audit(
                project=project, actor=None, action="run.request", target=str(again), reason=reason
            )
    except IntegrityError as error:
        raise UserError("Another run is in progress: the run waits for its end.") from error
    log.info("run_retrained", run=again.pk, number=again.number, retrains=run.number)
    return again


def retraining_objections(run: Run, snapshot: Snapshot) -> list[str]:
    """Return why a snapshot is too small for a run with the same settings."""
    loss = str(run.config.get("loss", "kto"))
    objections = loss_objections(run.project, loss, snapshot.train_up, snapshot.train_down)
    if min(snapshot.test_up, snapshot.test_down) < MIN_TEST_PER_CLASS:
        objections.append("No test example of one of both labels is left for the gate.")
    if snapshot.train_total < run.config["batch_size"]:
        objections.append(
            f"{number_of(snapshot.train_total, 'example')} left: fewer than one batch of "
            f"{run.config['batch_size']}."
        )
    return objections


def versions_lock(*, project: Project, numbers: Iterable[int]) -> list[Adapter]:
    """Lock the versions of these runs and return those that were not locked before: nothing can
    make them live, restore or download them again. The live version is not locked."""
    with transaction.atomic():
        # none becomes live meanwhile
        project = Project.objects.select_for_update().get(pk=project.pk)
        unlocked = project.adapters.filter(run__number__in=list(numbers), locked_at=None)
        adapters = list(unlocked.exclude(name=project.live_version).select_related("run"))
        now = timezone.now()
        for adapter in adapters:
            Adapter.objects.filter(pk=adapter.pk).update(
                locked_at=now, discarded_at=adapter.discarded_at or now
            )
            audit(
                project=project,
                actor=None,
                action="adapter.lock",
                target=adapter.name,
                reason=LEARNED,
            )
    return adapters


def run_files_delete(run: Run) -> None:
    """Delete all files of a run and of its version, and what the database has of their answers.

    Hashes, settings, curves and the gate's verdict stay. Call it for a locked version, or for a run
    without one. It can be repeated. Raises StoreError.
    """
    adapter = Adapter.objects.filter(run=run).first()
    run_files_remove(run, adapter)
    with transaction.atomic():
        Run.objects.filter(pk=run.pk).update(fit=None, resumable=False)
        SnapshotItem.objects.filter(snapshot=run.snapshot_id, reward__isnull=False).update(
            reward=None, reference_point=None, margin=None
        )
        InfluenceReport.objects.filter(adapter__run=run).delete()
        if adapter is None or adapter.deleted_at is not None:
            return
        batch = getattr(adapter, "pair_batch", None)
        if batch is not None:
            batch.pairs.all().delete()
        Adapter.objects.filter(pk=adapter.pk).update(deleted_at=timezone.now(), report={})
        audit(
            project=run.project,
            actor=None,
            action="adapter.delete",
            target=adapter.name,
            reason=LEARNED,
        )
