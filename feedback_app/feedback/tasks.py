"""Celery tasks of the feedback app: imports and webhooks."""

from celery import shared_task

from feedback_app.feedback.imports.services import claimable, import_claim, import_execute
from feedback_app.feedback.models import ImportJob
from feedback_app.feedback.webhooks.delivery import deliveries_expire, webhook_work, webhooks_due


@shared_task(name="feedback.dispatch")
def dispatch() -> None:
    """Hand due imports and webhooks to workers, every few seconds."""
    for job_id in ImportJob.objects.filter(claimable()).values_list("pk", flat=True):
        import_file.apply_async((job_id,), expires=10)
    for webhook_id in webhooks_due():
        webhook_send.apply_async((webhook_id,), expires=10)
    deliveries_expire()


@shared_task(name="feedback.import_file")
def import_file(job_id: int) -> None:
    """Run the import if it is unclaimed; a second delivery does nothing."""
    claim = import_claim(job_id)
    if claim is not None:
        import_execute(claim)


@shared_task(name="feedback.webhook_send")
def webhook_send(webhook_id: int) -> None:
    """Send due deliveries unless another worker is sending."""
    webhook_work(webhook_id)
