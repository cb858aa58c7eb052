"""Celery's side of feedback: imports."""

from celery import shared_task

from feedback_app.feedback.imports.jobs import claimable, import_claim, import_execute
from feedback_app.feedback.models import ImportJob


@shared_task(name="feedback.dispatch")
def dispatch() -> None:
    """Every few seconds: hand imports to a worker."""
    for job_id in ImportJob.objects.filter(claimable()).values_list("pk", flat=True):
        import_file.apply_async((job_id,), expires=10)


@shared_task(name="feedback.import_file")
def import_file(job_id: int) -> None:
    """Takes the import if it is free; a second delivery does nothing."""
    claim = import_claim(job_id)
    if claim is not None:
        import_execute(claim)
