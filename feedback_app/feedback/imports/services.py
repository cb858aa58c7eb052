"""Services of imports: requested, claimed, written in chunks, ended.

A chunk is committed with the offset after it, so that another worker resumes a killed import; a
worker whose claim was taken over writes nothing more.
"""

from pathlib import Path

import structlog
from django.db import IntegrityError, transaction
from django.db.models import F, Q, QuerySet
from django.utils import timezone

from artifact_store.errors import StoreDamaged, StoreUnreachable
from feedback_app.accounts.audit import audit
from feedback_app.accounts.models import User
from feedback_app.db.claims import Claim
from feedback_app.feedback.access import ARCHIVED
from feedback_app.feedback.imports.chunks import Chunk, chunk_try, chunk_write, in_chunks
from feedback_app.feedback.imports.files import copies_trim, copy_remove, file_fetch, file_remove
from feedback_app.feedback.imports.mapping import labels_of
from feedback_app.feedback.imports.opening import open_path, open_rows
from feedback_app.feedback.imports.readers import Columns, Unreadable
from feedback_app.feedback.imports.recognition import AS_KNOWN, Labels
from feedback_app.feedback.models import ImportJob, ImportRefusal, Project
from feedback_app.feedback.webhooks.events import import_event_write
from feedback_app.web.errors import UserError
from feedback_app.web.text.plurals import number_of

log = structlog.get_logger(__name__)

ImportClaim = Claim[ImportJob]

MAX_ATTEMPTS = 20
#: Refused rows that are stored for review; others are only counted.
REFUSALS_KEPT = 20_000


class ImportConflict(UserError):
    """A valid request that the current state of the import does not allow."""


def import_map(*, job: ImportJob, columns: Columns, labels: Labels) -> None:
    """Set the columns and labels of an import that has not started."""
    mapped = ImportJob.objects.filter(pk=job.pk, status=ImportJob.Status.PREVIEW).update(
        columns=dict(columns), labels_up=sorted(labels.up), labels_down=sorted(labels.down)
    )
    if not mapped:
        raise ImportConflict("This import was started already.")
    job.refresh_from_db()


def import_start(*, job: ImportJob, by: User) -> None:
    """Queue a previewed import."""
    try:
        with transaction.atomic():
            started = ImportJob.objects.filter(pk=job.pk, status=ImportJob.Status.PREVIEW).update(
                status=ImportJob.Status.QUEUED, by=by
            )
            if not started:
                raise ImportConflict("This import was started already.")
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
    """Stop an import after the chunk that it is writing; imported rows stay."""
    with transaction.atomic():
        stopped = ImportJob.objects.filter(pk=job.pk, status__in=ImportJob.OPEN).update(
            status=ImportJob.Status.CANCELLED, finished_at=timezone.now()
        )
        if not stopped:
            raise ImportConflict("This import has ended already.")
        audit(project=job.project, actor=by, action="import.stop", target=job.name)
    file_discard(job)


def import_discard(*, job: ImportJob, by: User) -> bool:
    """Delete an import that was not started, with its file; return whether there was one."""
    with transaction.atomic():
        waiting = ImportJob.objects.filter(pk=job.pk, status=ImportJob.Status.PREVIEW)
        if waiting.select_for_update().first() is None:
            return False
        waiting.delete()
        audit(project=job.project, actor=by, action="import.discard", target=job.name)
    file_discard(job)
    return True


def file_discard(job: ImportJob) -> None:
    """Delete the uploaded file of an ended import."""
    if job.uploaded:
        file_remove(Path(job.path))


def copy_discard(job: ImportJob) -> None:
    """Delete this host's copy of the uploaded file of an import that another host has ended."""
    if job.uploaded:
        copy_remove(Path(job.path))


# -- the worker


def import_claim(job_id: int) -> ImportClaim | None:
    """Claim a waiting or abandoned import; None if another worker has it or it has ended."""
    return Claim.take(job_rows(job_id))


def job_rows(job_id: int) -> QuerySet[ImportJob]:
    return ImportJob.objects.select_related("project", "by").filter(pk=job_id)


def import_take_here(
    *,
    project: Project,
    path: Path,
    by: User,
    columns: Columns | None = None,
    labels: Labels = AS_KNOWN,
) -> ImportClaim:
    """Claim a new import, or the unfinished import of the same file, for the command line.

    Raises UserError while another file is being imported, or this file with other options, and in
    an archived project.
    """
    if project.archived_at:
        raise UserError(ARCHIVED)
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
                # claimed from the start, so that no worker takes it at the same time
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
    claim = (
        Claim.take(job_rows(active.pk), condition=Q(status__in=ImportJob.ACTIVE))
        if active and same
        else None
    )
    if claim is None:
        raise UserError("Another import into this project is running. Wait until it has finished.")
    return claim


def import_execute(claim: ImportClaim) -> None:
    """Import the rest of the file in chunks."""
    job = claim.row
    if claim.attempt > MAX_ATTEMPTS:
        import_end(claim, ImportJob.Status.FAILED, "It failed too often.")
        return
    try:
        # skipped rows and large groups of rows are read without a commit in between
        with claim.kept_alive(), open_path(job_file(job)) as file:
            rows = open_rows(file, columns=job.columns)
            for chunk in in_chunks(rows.records(after=job.offset), labels=job_labels(job)):
                chunk.share = rows.share
                if not chunk_commit(claim, chunk):
                    log.warning("import_claim_lost", job=job.pk)
                    return
    except StoreUnreachable as error:
        # taken up again once the claim is stale
        log.warning("import_waits_for_the_store", job=job.pk, why=str(error))
    except (Unreadable, StoreDamaged) as error:
        import_end(claim, ImportJob.Status.FAILED, str(error))
    else:
        import_end(claim, ImportJob.Status.DONE, "")


def job_file(job: ImportJob) -> Path:
    """Return the path of the file, brought to this host. Raises StoreError."""
    path = Path(job.path)
    if not job.uploaded:
        return path
    copies_trim()
    return file_fetch(path)


def job_labels(job: ImportJob) -> Labels:
    """Return the meaning of the file's labels."""
    return labels_of(job.labels_up, job.labels_down)


def chunk_commit(claim: ImportClaim, chunk: Chunk) -> bool:
    """Write a chunk, its refusals and the offset in a transaction; False if the claim is lost."""
    with transaction.atomic():
        job = claim.held().select_for_update().first()
        if job is None:
            return False
        write = chunk_try if job.dry_run else chunk_write
        written = write(chunk, project=claim.row.project, by=claim.row.by)
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
    """Set the final state and delete the uploaded file."""
    with transaction.atomic():
        ended = claim.update(
            status=status,
            error=error,
            finished_at=timezone.now(),
            share=1.0 if not error else F("share"),
        )
        if ended and not claim.row.dry_run:
            job = ImportJob.objects.select_related("project", "by").get(pk=claim.row.pk)
            if job.gold:
                made = number_of(job.gold, "answer")
                audit(
                    project=job.project,
                    actor=job.by,
                    action="gold.import",
                    target=job.name,
                    reason=made,
                )
            import_event_write(job)
    if ended:
        file_discard(claim.row)
