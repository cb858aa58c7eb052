"""Celery tasks of the privacy app."""

from celery import shared_task

from feedback_app.privacy.erasure import erasure_claim, erasure_execute
from feedback_app.privacy.forgetting.services import project_forget
from feedback_app.training.models import Erasure


@shared_task(name="privacy.dispatch")
def dispatch() -> None:
    """Send abandoned erasures, and projects with versions to forget, to a worker."""
    for pk in Erasure.objects.filter(Erasure.claimable()).values_list("pk", flat=True):
        erase.apply_async((pk,), expires=60)
    pending = Erasure.objects.pending().order_by().values_list("project", flat=True)
    for pk in pending.distinct():
        forget.apply_async((pk,), expires=60)


@shared_task(name="privacy.erase")
def erase(erasure_id: int) -> None:
    """Finish an erasure; a second delivery of the message does nothing."""
    claim = erasure_claim(erasure_id)
    if claim is not None:
        erasure_execute(claim)


@shared_task(name="privacy.forget")
def forget(project_id: int) -> None:
    """Take the next steps after a project's erasures."""
    project_forget(project_id)
