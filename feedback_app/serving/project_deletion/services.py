"""Deleting a project: requested on its page, done by a worker in batches.

Each batch is a transaction, so another worker resumes a killed deletion where it stopped: what is
left to delete follows from rows alone.
"""

from collections.abc import Iterator

import structlog
from django.db import transaction
from django.utils import timezone

from artifact_store.errors import StoreError
from feedback_app.accounts.audit import audit
from feedback_app.accounts.models import Invitation, Membership, User
from feedback_app.db.claims import Claim, ClaimLost
from feedback_app.feedback.imports.services import file_discard
from feedback_app.feedback.models import BASE_VERSION, Project, ProjectDeletion
from feedback_app.serving.engine.client import Engine, EngineError, engine_urls
from feedback_app.serving.engine.state import engine_models
from feedback_app.serving.models import ShareLink
from feedback_app.serving.project_deletion.parts import PARTS, Part
from feedback_app.serving.project_deletion.selectors import (
    Line,
    deletion_objections,
    rows_counted,
    rows_deleted,
)
from feedback_app.training.registry.files import run_files_remove
from feedback_app.web.errors import UserError

log = structlog.get_logger(__name__)

DeletionClaim = Claim[ProjectDeletion]


def project_delete(*, project: Project, by: User) -> ProjectDeletion:
    """Request the deletion of an archived project: nobody is a member of it from now on.

    Raises UserError with every reason why it cannot be deleted now.
    """
    with transaction.atomic():
        # a run and an import take the same lock, or find the project archived
        project = Project.objects.select_for_update().get(pk=project.pk)
        if objections := deletion_objections(project):
            raise UserError(" ".join(objections))
        audit(
            project=project,
            actor=by,
            action="project.delete",
            target=project.slug,
            reason=lines_text(rows_counted(project)),
        )
        now = timezone.now()
        Membership.objects.filter(project=project).delete()
        Invitation.objects.filter(project=project, revoked_at=None).update(revoked_at=now)
        ShareLink.objects.filter(project=project, revoked_at=None).update(revoked_at=now)
        project.tokens.filter(revoked_at=None).update(revoked_at=now)
        # no engine loads a version again
        Project.objects.filter(pk=project.pk).update(live_version=BASE_VERSION, votes_told=False)
        return ProjectDeletion.objects.create(project=project, by=by)


def lines_text(lines: list[Line]) -> str:
    """Return counts as a text, without those that are 0."""
    return ", ".join(f"{line.count:,} {line.label}" for line in lines if line.count)


def deletion_claim(project_id: int) -> DeletionClaim | None:
    """Claim a deletion; None if another worker has it or it is finished."""
    rows = ProjectDeletion.objects.select_related("project").filter(pk=project_id)
    return Claim.take(rows)


def deletion_execute(claim: DeletionClaim) -> None:
    """Do the work of a deletion, or the rest of it, unless another worker has taken it over.

    An artifact store that does not answer is asked again once the claim is stale.
    """
    try:
        with claim.kept_alive() as heartbeat:
            for _ in deletion_steps(claim):
                if heartbeat.lost:
                    raise ClaimLost
    except ClaimLost:
        log.warning("deletion_claim_lost", project=claim.row.pk)
    except StoreError as error:
        log.warning("deletion_waits", project=claim.row.pk, why=str(error))
        claim.update(problem=f"{error}. It is tried again.")


def deletion_steps(claim: DeletionClaim) -> Iterator[None]:
    """Delete everything of the project, one batch per step. Raises ClaimLost and StoreError."""
    project = claim.row.project
    versions_unload(project)
    runs = project.runs.select_related("adapter").defer("fit", "adapter__report", "adapter__gate")
    for run in list(runs.order_by("pk")):
        run_files_remove(run, getattr(run, "adapter", None))
        yield
    for job in project.import_jobs.filter(uploaded=True).iterator():
        file_discard(job)
    # rows that a request or a task which began before has written meanwhile are found again
    deleted = 1
    while deleted:
        deleted = 0
        for number, part in enumerate(PARTS):
            while count := batch_delete(claim, number, part):
                deleted += count
                yield
    deletion_end(claim)


def versions_unload(project: Project) -> None:
    """Unload the project's versions from the engines that answer; one that is down has none."""
    try:
        for url in engine_urls(project.base_model):
            for name in engine_models(url):
                if name.rpartition("@")[0] == project.slug:
                    Engine(project).unload(name)
    except EngineError as error:
        log.warning("unload_failed", project=project.slug, why=str(error))


def batch_delete(claim: DeletionClaim, number: int, part: Part) -> int:
    """Delete a batch of a part; return the number of its rows, 0 if none are left.

    Raises ClaimLost if another worker has the deletion.
    """
    with transaction.atomic():
        deletion = claim.held().select_for_update().first()
        if deletion is None:
            raise ClaimLost
        ids = list(part.rows(claim.row.project).values_list("pk", flat=True)[: part.batch])
        if ids:
            _, gone = part.model._default_manager.filter(pk__in=ids).delete()
            for label, count in gone.items():
                deletion.counts[label] = deletion.counts.get(label, 0) + count
        part_now = max(number, deletion.part)
        claim.update(part=part_now, counts=deletion.counts, problem="")
    return len(ids)


def deletion_end(claim: DeletionClaim) -> None:
    """Empty the project's own row and end the deletion. Raises ClaimLost."""
    with transaction.atomic():
        deletion = claim.held().select_for_update().first()
        if deletion is None:
            raise ClaimLost
        project = claim.row.project
        Project.objects.filter(pk=project.pk).update(
            system_prompt="", guidelines="", reasons={}, split_key=""
        )
        audit(
            project=project,
            actor=None,
            action="project.deleted",
            target=project.slug,
            reason=lines_text(rows_deleted(deletion)),
        )
        claim.update(part=len(PARTS), finished_at=timezone.now())
    log.info("project_deleted", project=project.slug, rows=sum(deletion.counts.values()))
