"""Archiving a project: it becomes read-only and disappears from lists, and can be restored."""

from contextlib import suppress

from django.db import transaction
from django.utils import timezone

from feedback_app.accounts.audit import audit
from feedback_app.accounts.models import User
from feedback_app.feedback.imports.services import import_cancel
from feedback_app.feedback.models import ImportJob, Project, ProjectDeletion, Sampling
from feedback_app.feedback.prompts.completions import sampling_cancel
from feedback_app.web.errors import UserError


def project_archive(*, project: Project, by: User) -> None:
    """Make a project read-only. Samplings and imports end, schedules wait, share links and tokens
    that write are refused. A run that is in progress ends; its version is not released
    automatically."""
    with transaction.atomic():
        if not _set(project, archived=True):
            return
        for sampling in project.samplings.filter(status__in=Sampling.ACTIVE):
            with suppress(UserError):  # it has just ended
                sampling_cancel(sampling=sampling, by=by)
        for job in project.import_jobs.filter(status__in=ImportJob.ACTIVE):
            with suppress(UserError):
                import_cancel(job=job, by=by)
        audit(project=project, actor=by, action="project.archive", target=project.slug)


def project_restore(*, project: Project, by: User) -> None:
    """Make an archived project as it was before. Raises UserError while it is deleted."""
    with transaction.atomic():
        Project.objects.select_for_update().get(pk=project.pk)
        if ProjectDeletion.objects.filter(project=project).exists():
            raise UserError("This project is being deleted.")
        if _set(project, archived=False):
            audit(project=project, actor=by, action="project.restore", target=project.slug)


def _set(project: Project, *, archived: bool) -> bool:
    """Set or clear the time; return False if it was so already."""
    rows = Project.objects.filter(pk=project.pk, archived_at__isnull=archived)
    return bool(rows.update(archived_at=timezone.now() if archived else None))
