"""Celery tasks of feedback: imports, webhooks and figures."""

from celery import shared_task

from feedback_app.feedback.figures.services import figures_count, figures_due
from feedback_app.feedback.imports.services import import_claim, import_execute
from feedback_app.feedback.members import figures
from feedback_app.feedback.models import ImportJob
from feedback_app.feedback.webhooks.delivery import deliveries_expire, webhook_work, webhooks_due


@shared_task(name="feedback.dispatch")
def dispatch() -> None:
    """Send imports and webhooks that are due to workers, every few seconds."""
    for job_id in ImportJob.objects.filter(ImportJob.claimable()).values_list("pk", flat=True):
        import_file.apply_async((job_id,), expires=10)
    for webhook_id in webhooks_due():
        webhook_send.apply_async((webhook_id,), expires=10)
    for pk in figures_due(figures.NAME).values_list("pk", flat=True):
        count_figures.apply_async((pk,), expires=10)
    deliveries_expire()


@shared_task(name="feedback.count_figures")
def count_figures(pk: int) -> None:
    """Count the votes of each member of a large project."""
    figures_count(pk=pk, count=figures.members_count)


@shared_task(name="feedback.import_file")
def import_file(job_id: int) -> None:
    """Execute an import; a second delivery of the message does nothing."""
    claim = import_claim(job_id)
    if claim is not None:
        import_execute(claim)


@shared_task(name="feedback.webhook_send")
def webhook_send(webhook_id: int) -> None:
    """Send a webhook's due deliveries; a second delivery of the message does nothing."""
    webhook_work(webhook_id)
