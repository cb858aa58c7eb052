"""Celery's side of feedback: imports and webhooks."""

from celery import shared_task

from feedback_app.feedback.imports.services import import_claim, import_execute
from feedback_app.feedback.models import ImportJob
from feedback_app.feedback.webhooks.delivery import deliveries_expire, webhook_work, webhooks_due


@shared_task(name="feedback.dispatch")
def dispatch() -> None:
    """Every few seconds: hand imports and webhooks to workers."""
    for job_id in ImportJob.objects.filter(ImportJob.claimable()).values_list("pk", flat=True):
        import_file.apply_async((job_id,), expires=10)
    for webhook_id in webhooks_due():
        webhook_send.apply_async((webhook_id,), expires=10)
    deliveries_expire()


@shared_task(name="feedback.import_file")
def import_file(job_id: int) -> None:
    """Takes the import if it is free; a second delivery does nothing."""
    claim = import_claim(job_id)
    if claim is not None:
        import_execute(claim)


@shared_task(name="feedback.webhook_send")
def webhook_send(webhook_id: int) -> None:
    """Sends what is due, if nobody else is at it."""
    webhook_work(webhook_id)
