"""Delivery of webhook events: signed, to a checked address, with retries.

Signed by the Standard Webhooks specification (standardwebhooks.com), which has libraries in many
languages.
"""

import base64
import datetime as dt
import hashlib
import hmac
import random
import time

import structlog
from cryptography.fernet import InvalidToken
from django.db.models import F, OuterRef, Q, Subquery
from django.utils import timezone

from feedback_app.accounts.audit import audit
from feedback_app.accounts.sealing import unseal
from feedback_app.feedback.models.webhooks import Webhook, WebhookDelivery
from feedback_app.feedback.webhooks.addresses import target_of
from feedback_app.feedback.webhooks.http_client import Unreached, post
from feedback_app.feedback.webhooks.services import MARK
from feedback_app.web.errors import UserError

log = structlog.get_logger(__name__)

#: The wait after the first attempt; each further wait is three times as long.
FIRST_WAIT_SECONDS = 30
MAX_ATTEMPTS = 8  # the last about nine hours after the first
#: A worker sends to one webhook for this long; after twice that its claim is stale.
SHIFT_SECONDS = 30
#: Webhooks that are sent to at a time: the worker's other threads stay free.
AT_A_TIME = 2
KEPT = dt.timedelta(days=30)


def webhooks_due() -> list[int]:
    """Return the webhooks with due deliveries, the longest waiting first."""
    due = WebhookDelivery.objects.due().filter(webhook=OuterRef("pk"))
    longest = due.order_by("next_at").values("next_at")[:1]
    free = Webhook.objects.filter(unclaimed()).annotate(since=Subquery(longest))
    waiting = free.exclude(since=None).order_by("since").values_list("pk", flat=True)
    return list(waiting[: max(0, AT_A_TIME - busy())])


def busy() -> int:
    """Return how many webhooks are claimed."""
    return Webhook.objects.filter(busy_until__gte=timezone.now()).count()


def unclaimed() -> Q:
    return Q(busy_until=None) | Q(busy_until__lt=timezone.now())


def webhook_work(pk: int) -> int:
    """Send the due deliveries of a webhook, oldest first; return the number of attempts.

    A slow receiver delays only its own deliveries. A second worker finds the webhook claimed and
    does nothing.
    """
    until = timezone.now() + dt.timedelta(seconds=2 * SHIFT_SECONDS)
    if busy() >= AT_A_TIME:
        return 0
    if not Webhook.objects.filter(unclaimed(), pk=pk).update(busy_until=until):
        return 0
    attempts = 0
    try:
        begun = time.monotonic()
        while time.monotonic() - begun < SHIFT_SECONDS:
            due = WebhookDelivery.objects.due().filter(webhook=pk)
            delivery = due.select_related("webhook__project").order_by("next_at", "pk").first()
            if delivery is None:
                break
            delivery_send(delivery)
            attempts += 1
    finally:
        Webhook.objects.filter(pk=pk, busy_until=until).update(busy_until=None)
    return attempts


def delivery_send(delivery: WebhookDelivery) -> None:
    """Make one attempt. It is counted first: after a killed worker the row is sent again later."""
    row = WebhookDelivery.objects.filter(pk=delivery.pk)
    delivery.attempts += 1
    row.update(attempts=F("attempts") + 1, next_at=timezone.now() + wait_after(delivery.attempts))
    status, error = None, ""
    try:
        body = delivery.body.encode()
        status = post(target_of(delivery.webhook.url), body, signed(delivery, body))
        error = "" if 200 <= status < 300 else f"The server answered {status}."
    except (UserError, Unreached) as failed:
        error = str(failed)
    except InvalidToken:
        error = "The secret cannot be decrypted, as SECRET_KEY has changed: make a new webhook."
    if not error:
        row.update(
            status=WebhookDelivery.Status.DELIVERED,
            answer_status=status,
            error="",
            ended_at=timezone.now(),
        )
        return
    row.update(answer_status=status, error=error[:300])
    if delivery.attempts >= MAX_ATTEMPTS:
        give_up(delivery, error)


def give_up(delivery: WebhookDelivery, error: str) -> None:
    """Mark a delivery as failed, in the log and the audit trail; it can be sent again by hand."""
    WebhookDelivery.objects.filter(pk=delivery.pk).update(
        status=WebhookDelivery.Status.FAILED, ended_at=timezone.now()
    )
    webhook = delivery.webhook
    log.warning("webhook_gave_up", webhook=webhook.pk, delivery=delivery.pk, why=error)
    audit(
        project=webhook.project,
        actor=None,
        action="webhook.give_up",
        target=webhook.url[:200],
        reason=f"{delivery.event} after {delivery.attempts} attempts: {error}",
    )


def wait_after(attempts: int) -> dt.timedelta:
    """Return the wait after an attempt: exponential, with jitter."""
    chance = random.uniform(0.8, 1.2)  # noqa: S311
    return dt.timedelta(seconds=FIRST_WAIT_SECONDS * 3.0 ** (attempts - 1) * chance)


def signed(delivery: WebhookDelivery, body: bytes) -> dict[str, str]:
    """Return the headers that prove sender and time, and identify repeats."""
    key = base64.b64decode(unseal(delivery.webhook.secret).removeprefix(MARK))
    now = str(int(time.time()))
    content = f"{delivery.key}.{now}.".encode() + body
    signature = base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()
    return {
        "Content-Type": "application/json",
        "User-Agent": "Prospect-Webhooks",
        "webhook-id": delivery.key,
        "webhook-timestamp": now,
        "webhook-signature": f"v1,{signature}",
    }


def deliveries_expire() -> None:
    """Delete deliveries that ended long ago."""
    old = WebhookDelivery.objects.filter(created_at__lt=timezone.now() - KEPT)
    old.exclude(status=WebhookDelivery.Status.WAITING).delete()
