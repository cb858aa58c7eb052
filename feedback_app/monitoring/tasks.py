"""Celery task of monitoring."""

from celery import shared_task

from feedback_app.monitoring.watch import installation_watch


@shared_task(name="monitoring.dispatch")
def dispatch() -> None:
    """Tell people about engines that do not answer and disks that are nearly full."""
    installation_watch()
