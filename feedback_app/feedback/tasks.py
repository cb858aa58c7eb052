"""Celery tasks of feedback: imports, webhooks and figures."""

from celery import shared_task

from feedback_app.accounts.audit_chain import events_link
from feedback_app.accounts.models import AuditEvent
from feedback_app.feedback.figures.services import figures_count, figures_due
from feedback_app.feedback.imports.services import import_claim, import_execute
from feedback_app.feedback.members import figures
from feedback_app.feedback.models import ImportJob
from feedback_app.feedback.notifications.digest import digest_send, digests_due
from feedback_app.feedback.notifications.services import notifications_expire
from feedback_app.feedback.reliability import services as reliability
from feedback_app.feedback.webhooks.delivery import deliveries_expire, webhook_work, webhooks_due


@shared_task(name="feedback.dispatch")
def dispatch() -> None:
    """Send imports, webhooks and audit events that are due to workers, every few seconds."""
    for job_id in ImportJob.objects.filter(ImportJob.claimable()).values_list("pk", flat=True):
        import_file.apply_async((job_id,), expires=10)
    for webhook_id in webhooks_due():
        webhook_send.apply_async((webhook_id,), expires=10)
    for pk in figures_due(figures.NAME).values_list("pk", flat=True):
        count_figures.apply_async((pk,), expires=10)
    if AuditEvent.objects.filter(number=None).exists():
        link_audit_events.apply_async((), expires=10)
    for user_id in digests_due():
        send_digest.apply_async((user_id,), expires=10)
    deliveries_expire()
    notifications_expire()


@shared_task(name="feedback.link_audit_events")
def link_audit_events() -> None:
    """Add new events of the audit trail to its chain."""
    events_link()


@shared_task(name="feedback.send_digest")
def send_digest(user_id: int) -> None:
    """Send a person's e-mail digest; a second delivery of the message does nothing."""
    digest_send(user_id)


@shared_task(name="feedback.count_figures")
def count_figures(pk: int) -> None:
    """Count the votes of each member of a large project."""
    figures_count(pk=pk, count=figures.members_count)


@shared_task(name="feedback.renew_reliability")
def renew_reliability() -> None:
    """Send what is due of the hourly estimates to workers, every minute."""
    reliability.reliability_renew()
    for pk in figures_due(reliability.NAME).values_list("pk", flat=True):
        count_reliability.apply_async((pk,), expires=50)


@shared_task(name="feedback.count_reliability")
def count_reliability(pk: int) -> None:
    """Estimate how reliable each person of a project is."""
    figures_count(pk=pk, count=reliability.reliability_count)


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
