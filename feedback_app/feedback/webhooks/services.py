"""Creating, pausing and removing webhooks, and repeating deliveries."""

import base64
import secrets
from collections.abc import Sequence

from django.db import transaction
from django.utils import timezone

from feedback_app.accounts.audit import audit
from feedback_app.accounts.models import User
from feedback_app.accounts.sealing import seal
from feedback_app.feedback.models import Project
from feedback_app.feedback.models.webhooks import Event, Webhook, WebhookDelivery
from feedback_app.feedback.webhooks.addresses import target_of
from feedback_app.feedback.webhooks.events import delivery_write

#: The prefix of secrets in the Standard Webhooks specification.
MARK = "whsec_"


def webhook_create(
    *, project: Project, url: str, events: Sequence[Event], by: User
) -> tuple[Webhook, str]:
    """Return a new webhook and its secret, which is shown once. Raise UserError."""
    target_of(url)  # queries a name server, so not in the transaction
    secret = MARK + base64.b64encode(secrets.token_bytes(32)).decode()
    with transaction.atomic():
        webhook = Webhook.objects.create(
            project=project,
            url=url,
            secret=seal(secret),
            events=[str(event) for event in events],
            created_by=by,
        )
        votes_told_refresh(project)
        audit(project=project, actor=by, action="webhook.create", target=url[:200])
    return webhook, secret


def webhook_switch(*, webhook: Webhook, on: bool, by: User | None) -> bool:
    """Pause or resume; waiting deliveries are kept. Return False if nothing changed."""
    with transaction.atomic():
        changed = Webhook.objects.filter(pk=webhook.pk, active=not on).update(active=on)
        if changed:
            votes_told_refresh(webhook.project)
            action = "webhook.resume" if on else "webhook.pause"
            audit(project=webhook.project, actor=by, action=action, target=webhook.url[:200])
    return bool(changed)


def webhook_remove(*, webhook: Webhook, by: User) -> None:
    """Delete the webhook with its log."""
    with transaction.atomic():
        Webhook.objects.filter(pk=webhook.pk).delete()
        votes_told_refresh(webhook.project)
        audit(project=webhook.project, actor=by, action="webhook.remove", target=webhook.url[:200])


def votes_told_refresh(project: Project) -> None:
    """Update `Project.votes_told`, which saves votes a query for subscribed webhooks."""
    active = Webhook.objects.filter(project=project, active=True).values_list("events", flat=True)
    subscribed = any(Event.VOTE_CAST in events for events in active)
    Project.objects.filter(pk=project.pk).update(votes_told=subscribed)


def ping_write(*, webhook: Webhook) -> None:
    """Store a test event."""
    delivery_write(
        webhook,
        event="test",
        key=f"test:{secrets.token_hex(8)}",
        data={"message": "Hello from Prospect."},
        project=webhook.project,
    )


def delivery_repeat(*, delivery: WebhookDelivery) -> None:
    """Send a delivery again, starting with the first attempt."""
    WebhookDelivery.objects.filter(pk=delivery.pk).update(
        status=WebhookDelivery.Status.WAITING,
        attempts=0,
        next_at=timezone.now(),
        ended_at=None,
        error="",
        answer_status=None,
    )
