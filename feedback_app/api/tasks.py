"""Celery tasks of the APIs."""

from celery import shared_task

from feedback_app.api.data.expiry import idempotency_records_expire


@shared_task(name="api.dispatch")
def dispatch() -> None:
    """Delete idempotency records that have expired."""
    idempotency_records_expire()
