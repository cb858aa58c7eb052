"""Webhooks: where a project's events are told, and every telling."""

from typing import Any, ClassVar, Self

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone


class Event(models.TextChoices):
    """What a webhook can be told of."""

    VOTE_CAST = "vote.cast", "A vote is cast or changed"
    RUN_FINISHED = "run.finished", "A run ends, well or not"
    RELEASE_CHANGED = "release.changed", "Another version is live"
    IMPORT_FINISHED = "import.finished", "An import ends"


class Webhook(models.Model):
    """An address of the project's that is told of some events, signed."""

    project = models.ForeignKey(
        "feedback.Project", on_delete=models.CASCADE, related_name="webhooks"
    )
    url = models.URLField(max_length=500)
    # sealed (accounts/sealing.py): it must be read to sign with it
    secret = models.CharField(max_length=300)
    events: Any = models.JSONField(default=list)
    # off: nothing new is written for it
    active = models.BooleanField(default=True)
    # one sender at a time: whoever has set it, until then
    busy_until = models.DateTimeField(null=True)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return self.url

    @property
    def event_labels(self) -> list[str]:
        return [event.value for event in Event if event in self.events]


class DeliveryQuerySet(models.QuerySet["WebhookDelivery"]):
    def due(self) -> Self:
        """To be sent now, or again."""
        return self.filter(
            status=WebhookDelivery.Status.WAITING,
            next_at__lte=timezone.now(),
            webhook__active=True,
        )


class WebhookDelivery(models.Model):
    """One event on its way to one webhook. Written with the action: the row is what is sent."""

    class Status(models.TextChoices):
        WAITING = "waiting", "Waiting"
        DELIVERED = "delivered", "Delivered"
        FAILED = "failed", "Given up"

    webhook = models.ForeignKey(Webhook, on_delete=models.CASCADE, related_name="deliveries")
    # 'test' or one of Event
    event = models.CharField(max_length=20)
    # of the event: the same at every webhook and every attempt, so that receivers know repeats
    key = models.CharField(max_length=80)
    body = models.TextField()
    status = models.CharField(max_length=9, choices=Status.choices, default=Status.WAITING)
    attempts = models.PositiveSmallIntegerField(default=0)
    next_at = models.DateTimeField(default=timezone.now)
    # what the last attempt came to
    answer_status = models.PositiveSmallIntegerField(null=True)
    error = models.CharField(max_length=300, blank=True)
    created_at = models.DateTimeField(default=timezone.now)
    ended_at = models.DateTimeField(null=True)

    objects = DeliveryQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            # the same vote twice is one event
            models.UniqueConstraint(fields=["webhook", "key"], name="one_delivery_per_event")
        ]
        indexes: ClassVar = [
            models.Index(
                fields=["next_at"], condition=Q(status="waiting"), name="delivery_waiting"
            ),
            models.Index(fields=["webhook", "-id"], name="delivery_log"),
            models.Index(fields=["created_at"], name="delivery_age"),
        ]

    def __str__(self) -> str:
        return f"{self.event} to {self.webhook_id}"
