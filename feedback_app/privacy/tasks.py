"""Celery tasks of the privacy app."""

from celery import shared_task

from feedback_app.privacy.erasure import erasures_resume


@shared_task(name="privacy.dispatch")
def dispatch() -> None:
    """Finish erasures that were interrupted."""
    erasures_resume()
