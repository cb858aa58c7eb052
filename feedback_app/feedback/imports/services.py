"""Running imports: requested, claimed, written in chunks, ended.

A chunk commits together with the offset after it, so a killed import resumes there; a worker whose
claim was taken over writes nothing more.
"""

import datetime as dt
from dataclasses import dataclass
from pathlib import Path

import structlog
from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import F, Q
from django.utils import timezone

from feedback_app.accounts.audit import audit
from feedback_app.accounts.models import User
from feedback_app.db.heartbeats import kept_alive
from feedback_app.feedback.imports.chunks import Chunk, chunk_try, chunk_write, in_chunks
from feedback_app.feedback.imports.mapping import labels_of
from feedback_app.feedback.imports.readers import Columns, Unreadable, open_path, open_rows
from feedback_app.feedback.imports.recognition import AS_KNOWN, Labels
from feedback_app.feedback.models import ImportJob, ImportRefusal, Project
from feedback_app.feedback.webhooks.events import import_event_write
from feedback_app.web.errors import UserError

log = structlog.get_logger(__name__)

MAX_ATTEMPTS = 20
#: Refused rows that are stored; further ones are only counted.
REFUSALS_KEPT = 20_000


class ImportConflict(UserError):
    """The import's state, or another import, does not allow the request now."""


@dataclass(frozen=True)
class ImportClaim:
    """A worker's claim on an import; all its writes require that the claim still holds."""

    job: ImportJob
    attempt: int

    def held(self) -> Q:
        return Q(pk=self.job.pk, attempt=self.attempt, status=ImportJob.Status.RUNNING)

    def heartbeat(self) -> bool:
        """Return False if another worker has the import."""
        return bool(ImportJob.objects.filter(self.held()).update(heartbeat_at=timezone.now()))


def import_map(*, job: ImportJob, columns: Columns, labels: Labels) -> None:
    """Store the columns and labels of a file that has not been started."""
    mapped = ImportJob.objects.filter(pk=job.pk, status=ImportJob.Status.PREVIEW).update(
        columns=dict(columns), labels_up=sorted(labels.up), labels_down=sorted(labels.down)
    )
    if not mapped:
        raise ImportConflict("This import has already been started.")
    job.refresh_from_db()


def import_start(*, job: ImportJob, by: User) -> None:
    """Queue a previewed import."""
    try:
        with transaction.atomic():
            started = ImportJob.objects.filter(pk=job.pk, status=ImportJob.Status.PREVIEW).update(
                status=ImportJob.Status.QUEUED, by=by
            )
            if not started:
                raise ImportConflict("This import has already been started.")
            reason = "dry run" if job.dry_run else ""
            audit(
                project=job.project,
                actor=by,
                action="import.start",
                target=job.name,
                reason=reason,
            )
    except IntegrityError as error:
        raise ImportConflict("Another import is running. Wait until it has finished.") from error


def import_cancel(*, job: ImportJob, by: User) -> None:
    """Stop an import after its present chunk; imported rows stay."""
    with transaction.atomic():
        stopped = ImportJob.objects.filter(
            pk=job.pk, status__in=[ImportJob.Status.PREVIEW, *ImportJob.ACTIVE]
        ).update(status=ImportJob.Status.CANCELLED, finished_at=timezone.now())
        if not stopped:
            raise ImportConflict("This import has already ended.")
        audit(project=job.project, actor=by, action="import.stop", target=job.name)
    file_discard(job)


def file_discard(job: ImportJob) -> None:
    """Delete an uploaded file that is no longer needed."""
    if job.uploaded:
        Path(job.path).unlink(missing_ok=True)


# -- the worker's side


def claimable() -> Q:
    """Return the condition of jobs that are waiting or whose worker is gone."""
    stale = timezone.now() - dt.timedelta(seconds=settings.RUN_STALE_SECONDS)
    return Q(status=ImportJob.Status.QUEUED) | Q(
        status=ImportJob.Status.RUNNING, heartbeat_at__lt=stale
    )


def import_claim(job_id: int) -> ImportClaim | None:
    """Claim it by compare-and-swap; None if another worker has it or it has ended."""
    job = ImportJob.objects.filter(claimable(), pk=job_id).first()
    return take(job, claimable()) if job else None


def take(job: ImportJob, condition: Q) -> ImportClaim | None:
    """Raise the attempt if `condition` still holds; the previous worker then writes no more."""
    taken = ImportJob.objects.filter(condition, pk=job.pk, attempt=job.attempt).update(
        attempt=F("attempt") + 1, status=ImportJob.Status.RUNNING, heartbeat_at=timezone.now()
    )
    if not taken:
        return None
    fresh = ImportJob.objects.select_related("project", "by").get(pk=job.pk)
    return ImportClaim(fresh, fresh.attempt)


def import_take_here(
    *,
    project: Project,
    path: Path,
    by: User,
    columns: Columns | None = None,
    labels: Labels = AS_KNOWN,
) -> ImportClaim:
    """Return a claim for the command line: of a new job, or the unfinished job of the same file.

    Raise UserError while another file is being imported, or this one with another mapping.
    """
    columns = dict(columns or {})
    active = ImportJob.objects.filter(project=project, status__in=ImportJob.ACTIVE).first()
    if active is None:
        try:
            active = ImportJob.objects.create(
                project=project,
                by=by,
                name=path.name[:200],
                path=str(path),
                columns=columns,
                labels_up=sorted(labels.up),
                labels_down=sorted(labels.down),
                # claimed from the start, so that no worker takes it
                status=ImportJob.Status.RUNNING,
                heartbeat_at=timezone.now(),
            )
        except IntegrityError:
            active = None
        else:
            audit(project=project, actor=by, action="import.start", target=active.name)
    same = active is not None and active.path == str(path)
    if active and same and (active.columns, job_labels(active)) != (columns, labels):
        raise UserError(
            "The import of this file was started with other columns or labels. Use the same again."
        )
    claim = take(active, Q(status__in=ImportJob.ACTIVE)) if active and same else None
    if claim is None:
        raise UserError("Another import into this project is running. Wait until it has finished.")
    return claim


def import_execute(claim: ImportClaim) -> None:
    """Import the rest of the file, chunk by chunk."""
    job = claim.job
    if claim.attempt > MAX_ATTEMPTS:
        import_end(claim, ImportJob.Status.FAILED, "It was started too often without finishing.")
        return
    try:
        # skipped rows and large row groups are read without a commit in between
        with kept_alive(claim.heartbeat), open_path(Path(job.path)) as file:
            rows = open_rows(file, columns=job.columns)
            for chunk in in_chunks(rows.records(after=job.offset), labels=job_labels(job)):
                chunk.share = rows.share
                if not chunk_commit(claim, chunk):
                    log.warning("import_claim_lost", job=job.pk)
                    return
    except Unreadable as error:
        import_end(claim, ImportJob.Status.FAILED, str(error))
    else:
        import_end(claim, ImportJob.Status.DONE, "")


def job_labels(job: ImportJob) -> Labels:
    """Return the labels of the job's file."""
    return labels_of(job.labels_up, job.labels_down)


def chunk_commit(claim: ImportClaim, chunk: Chunk) -> bool:
    """Store the chunk, its refusals and the new offset in one transaction.

    Return False if the claim is lost.
    """
    with transaction.atomic():
        job = ImportJob.objects.select_for_update().filter(claim.held()).first()
        if job is None:
            return False
        write = chunk_try if job.dry_run else chunk_write
        written = write(chunk, project=claim.job.project, by=claim.job.by)
        kept = max(0, REFUSALS_KEPT - job.refused)
        ImportRefusal.objects.bulk_create(
            ImportRefusal(job=job, number=r.number, reason=r.reason, excerpt=r.excerpt)
            for r in chunk.refusals[:kept]
        )
        job.offset = chunk.last
        job.share = chunk.share
        job.rows += chunk.rows
        job.imported += written.imported
        job.gold += written.gold
        job.prompts += written.prompts
        job.duplicates += written.duplicates
        job.refused += len(chunk.refusals)
        job.heartbeat_at = timezone.now()
        job.save()
    return True


def import_end(claim: ImportClaim, status: ImportJob.Status, error: str) -> None:
    """Set a terminal state and delete the uploaded file."""
    with transaction.atomic():
        ended = ImportJob.objects.filter(claim.held()).update(
            status=status,
            error=error,
            finished_at=timezone.now(),
            share=1.0 if not error else F("share"),
        )
        if ended and not claim.job.dry_run:
            job = ImportJob.objects.select_related("project", "by").get(pk=claim.job.pk)
            if job.gold:
                made = f"{job.gold:,} answers"
                audit(
                    project=job.project,
                    actor=job.by,
                    action="gold.import",
                    target=job.name,
                    reason=made,
                )
            import_event_write(job)
    if ended:
        file_discard(claim.job)
