"""Webhooks and their deliveries."""

from typing import Any, ClassVar, Self

from django.conf import settings
from django.db import models
from django.db.models import Exists, OuterRef, Q
from django.utils import timezone

from feedback_app.accounts.models import Membership, Role, roles_from


class Event(models.TextChoices):
    """Events that a webhook can subscribe to."""

    VOTE_CAST = "vote.cast", "A vote is cast or changed"
    RUN_FINISHED = "run.finished", "A run ends"
    RELEASE_CHANGED = "release.changed", "The live version changes"
    IMPORT_FINISHED = "import.finished", "An import ends"
    GATE_DECIDED = "gate.decided", "The gate decides about a version"
    SPLIT_DECIDED = "split.decided", "A traffic split ends by its own rule"
    SCHEDULE_SKIPPED = "schedule.skipped", "The schedule is due and cannot start a run"
    QUOTA_REACHED = "quota.reached", "A share link is used up"
    ENGINE_DOWN = "engine.down", "No engine of the base model answers"
    DISK_LOW = "disk.low", "The disk for adapters is nearly full"


class WebhookQuerySet(models.QuerySet["Webhook"]):
    def of_former_admins(self) -> Self:
        """Those whose maker, who may know the secret, is no active admin of the project now."""
        admins = Membership.objects.filter(
            project=OuterRef("project"),
            user=OuterRef("created_by"),
            user__is_active=True,
            role__in=roles_from(Role.ADMIN),
        )
        return self.exclude(Exists(admins))


class Webhook(models.Model):
    """A URL that gets signed requests for some of the project's events."""

    project = models.ForeignKey(
        "feedback.Project", on_delete=models.CASCADE, related_name="webhooks"
    )
    url = models.URLField(max_length=500)
    # encrypted (accounts/sealing.py), not hashed: signing needs it
    secret = models.CharField(max_length=300)
    events: Any = models.JSONField(default=list)
    # off: new events are not stored for it
    active = models.BooleanField(default=True)
    # the claim of one worker, until this time
    busy_until = models.DateTimeField(null=True)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)

    objects = WebhookQuerySet.as_manager()

    def __str__(self) -> str:
        return self.url

    @property
    def event_labels(self) -> list[str]:
        return [event.value for event in Event if event in self.events]


class DeliveryQuerySet(models.QuerySet["WebhookDelivery"]):
    def due(self) -> Self:
        """To be sent now, for the first time or again."""
        return self.filter(
            status=WebhookDelivery.Status.WAITING,
            next_at__lte=timezone.now(),
            webhook__active=True,
        )


class WebhookDelivery(models.Model):
    """One event for one webhook, written in the transaction of the event."""

    class Status(models.TextChoices):
        WAITING = "waiting", "Waiting"
        DELIVERED = "delivered", "Delivered"
        FAILED = "failed", "Given up"

    webhook = models.ForeignKey(Webhook, on_delete=models.CASCADE, related_name="deliveries")
    # 'test' or one of Event
    event = models.CharField(max_length=20)
    # identifies the event at every webhook and attempt, so that receivers recognise repeats
    key = models.CharField(max_length=80)
    body = models.TextField()
    status = models.CharField(max_length=9, choices=Status.choices, default=Status.WAITING)
    attempts = models.PositiveSmallIntegerField(default=0)
    next_at = models.DateTimeField(default=timezone.now)
    # the result of the last attempt
    answer_status = models.PositiveSmallIntegerField(null=True)
    error = models.CharField(max_length=300, blank=True)
    created_at = models.DateTimeField(default=timezone.now)
    ended_at = models.DateTimeField(null=True)

    objects = DeliveryQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [
            # an unchanged vote that is sent again is no new event
            models.UniqueConstraint(fields=["webhook", "key"], name="one_delivery_per_event")
        ]
        indexes: ClassVar = [
            models.Index(
                fields=["next_at"], condition=Q(status="waiting"), name="delivery_waiting"
            ),
            models.Index(fields=["webhook", "-id"], name="delivery_log"),
            models.Index(fields=["webhook", "status", "-id"], name="delivery_state"),
            models.Index(fields=["created_at"], name="delivery_age"),
        ]

    def __str__(self) -> str:
        return f"{self.event} to {self.webhook_id}"
