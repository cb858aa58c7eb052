"""Celery tasks of the privacy app."""

from celery import shared_task

from feedback_app.privacy.erasure import erasure_claim, erasure_execute
from feedback_app.privacy.forgetting.services import project_forget
from feedback_app.serving.conversation_log.removal import conversations_expire, projects_past
from feedback_app.training.models import Erasure


@shared_task(name="privacy.dispatch")
def dispatch() -> None:
    """Send abandoned erasures, projects with versions to forget, and those with conversations past
    their retention, to a worker."""
    for pk in Erasure.objects.filter(Erasure.claimable()).values_list("pk", flat=True):
        erase.apply_async((pk,), expires=60)
    pending = Erasure.objects.pending().order_by().values_list("project", flat=True)
    for pk in pending.distinct():
        forget.apply_async((pk,), expires=60)
    for pk in projects_past():
        expire_conversations.apply_async((pk,), expires=60)


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


@shared_task(name="privacy.expire_conversations")
def expire_conversations(project_id: int) -> None:
    """Remove a project's old conversations; what is left is for the next task."""
    conversations_expire(project_id)
