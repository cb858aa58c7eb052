"""Notifications of members, and which of them each member wants."""

from typing import Any, ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone


class NotificationKind(models.TextChoices):
    """The events that owners and admins are notified of."""

    RUN_FINISHED = "run.finished", "A run ends with a new version"
    RUN_FAILED = "run.failed", "A run fails"
    GATE_PASSED = "gate.passed", "A version passes the gate"
    GATE_FAILED = "gate.failed", "A version fails the gate, or there is not enough evidence"
    RELEASED = "release", "Another version goes live"
    ROLLED_BACK = "rollback", "An earlier version goes live again"
    SPLIT_DECIDED = "split.decided", "A traffic split ends by its own rule"
    SCHEDULE_SKIPPED = "schedule.skipped", "The schedule is due and cannot start a run"
    QUOTA_REACHED = "quota.reached", "A share link has used up its messages or votes"
    ENGINE_DOWN = "engine.down", "No engine of the base model answers"
    DISK_LOW = "disk.low", "The disk for adapters is nearly full"


class Notification(models.Model):
    """One event for one member, written in the transaction of the event."""

    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="notifications"
    )
    project = models.ForeignKey(
        "feedback.Project", on_delete=models.CASCADE, related_name="notifications"
    )
    kind = models.CharField(max_length=20, choices=NotificationKind.choices)
    # identifies the event, so that nobody is notified of it twice
    key = models.CharField(max_length=80)
    text = models.CharField(max_length=300)
    # of the page where it can be dealt with
    path = models.CharField(max_length=200)
    # whether it is listed in the app
    listed = models.BooleanField(default=True)
    # whether the next digest has to name it
    mail_due = models.BooleanField(default=False)
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["user", "key"], name="one_notification_per_event")
        ]
        indexes: ClassVar = [
            models.Index(
                fields=["user", "-id"], condition=Q(listed=True), name="notification_list"
            ),
            models.Index(fields=["user"], condition=Q(mail_due=True), name="notification_mail"),
            models.Index(fields=["created_at"], name="notification_age"),
        ]

    def __str__(self) -> str:
        return self.text


class NotificationChoice(models.Model):
    """Which notifications a member gets from a project; without a row, DEFAULT_LISTED."""

    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="notification_choices"
    )
    project = models.ForeignKey(
        "feedback.Project", on_delete=models.CASCADE, related_name="notification_choices"
    )
    # values of NotificationKind
    listed: Any = models.JSONField(default=list)
    mailed: Any = models.JSONField(default=list)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["user", "project"], name="one_notification_choice_per_project"
            )
        ]

    def __str__(self) -> str:
        return f"{self.user_id} in {self.project_id}"


#: Kinds that are listed for a member who has chosen nothing; none is mailed.
DEFAULT_LISTED = tuple(NotificationKind.values)
