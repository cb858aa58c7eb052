"""Notifications, stored for members in the transaction that they report."""

import datetime as dt
from collections.abc import Sequence

from django.db import transaction
from django.utils import timezone

from feedback_app.accounts.models import Role, User, roles_from
from feedback_app.feedback.models import Project
from feedback_app.feedback.models.notifications import (
    DEFAULT_LISTED,
    Notification,
    NotificationChoice,
    NotificationKind,
)
from feedback_app.feedback.models.webhooks import Event
from feedback_app.feedback.webhooks.events import event_write

#: Older ones are deleted.
KEPT_DAYS = 90
#: Kinds that webhooks get by these events; runs and releases have events with more data.
EVENTS = {
    NotificationKind.GATE_PASSED: Event.GATE_DECIDED,
    NotificationKind.GATE_FAILED: Event.GATE_DECIDED,
    NotificationKind.SPLIT_DECIDED: Event.SPLIT_DECIDED,
    NotificationKind.SCHEDULE_SKIPPED: Event.SCHEDULE_SKIPPED,
    NotificationKind.QUOTA_REACHED: Event.QUOTA_REACHED,
    NotificationKind.ENGINE_DOWN: Event.ENGINE_DOWN,
    NotificationKind.DISK_LOW: Event.DISK_LOW,
}


def notify(
    *,
    project: Project,
    kind: NotificationKind,
    key: str,
    text: str,
    path: str,
    by: User | None = None,
) -> None:
    """Notify the project's owners and admins, and its webhooks. Call it in the event's transaction.

    `key` identifies the event: a second one with the same key is ignored. `path` is the page where
    it can be dealt with. `by` did it, and gets no notification.
    """
    key, text = f"{kind}:{project.pk}:{key}"[:80], text[:300]
    known = Notification.objects.filter(key=key).values_list("user_id", flat=True)
    recipients = set(recipient_ids(project)) - set(known) - {by and by.pk}
    choices = {
        choice.user_id: choice for choice in NotificationChoice.objects.filter(project=project)
    }
    rows = []
    for user_id in sorted(recipients):
        listed, mailed = _wanted(choices.get(user_id), kind)
        row = Notification(user_id=user_id, project=project, kind=kind, key=key, text=text)
        row.path, row.listed, row.mail_due = path, listed, mailed
        if listed or mailed:
            rows.append(row)
    Notification.objects.bulk_create(rows, ignore_conflicts=True)
    listed_for = [row.user_id for row in rows if row.listed]
    User.objects.filter(pk__in=listed_for).update(notified_at=timezone.now())
    if kind in EVENTS:
        data = {"kind": kind, "text": text, "path": path}
        event_write(project=project, event=EVENTS[kind], key=key[:60], data=data)


def _wanted(choice: NotificationChoice | None, kind: NotificationKind) -> tuple[bool, bool]:
    """Return whether a member wants a kind in the app, and by e-mail."""
    if choice is None:
        return kind in DEFAULT_LISTED, False
    return kind in choice.listed, kind in choice.mailed


def recipient_ids(project: Project) -> list[int]:
    """Return the ids of the active owners and admins."""
    members = project.memberships.filter(role__in=roles_from(Role.ADMIN), user__is_active=True)
    return list(members.order_by("user_id").values_list("user_id", flat=True))


def notifications_choose(
    *, project: Project, user: User, listed: Sequence[str], mailed: Sequence[str]
) -> None:
    """Set which kinds of a project a member finds in the app, and which come by e-mail."""
    NotificationChoice.objects.update_or_create(
        project=project, user=user, defaults={"listed": list(listed), "mailed": list(mailed)}
    )


def notifications_seen(*, user: User) -> None:
    """Note that a person has opened the list: the mark in the bar goes."""
    User.objects.filter(pk=user.pk).update(notifications_seen_at=timezone.now())


def notifications_expire() -> None:
    """Delete what is older than KEPT_DAYS."""
    oldest = timezone.now() - dt.timedelta(days=KEPT_DAYS)
    with transaction.atomic():
        Notification.objects.filter(created_at__lt=oldest).delete()
