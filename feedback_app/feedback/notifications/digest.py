"""The e-mail digest: one message with what happened since the last one."""

import datetime as dt

import structlog
from django.conf import settings
from django.core.mail import send_mail
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.template.loader import render_to_string
from django.utils import timezone

from feedback_app.accounts.models import Membership, Role, User, roles_from
from feedback_app.feedback.models.notifications import Notification

log = structlog.get_logger(__name__)

#: The shortest time between two digests of a person.
HOURS = 24
#: A digest names so many at most, newest first; the rest is counted.
NAMED = 50
#: A failed digest is tried again after this long.
RETRY_MINUTES = 30


def notifications_due() -> QuerySet[Notification]:
    """Return what a mail is to say: of projects in which the person still has such a role."""
    notified = Membership.objects.filter(
        user=OuterRef("user"), project=OuterRef("project"), role__in=roles_from(Role.ADMIN)
    )
    return Notification.objects.filter(Exists(notified), mail_due=True)


def digests_due() -> list[int]:
    """Return the ids of the people to whom a digest is due."""
    before = timezone.now() - dt.timedelta(hours=HOURS)
    waiting = notifications_due().filter(user__is_active=True)
    due = waiting.filter(Q(user__digest_at=None) | Q(user__digest_at__lte=before))
    return list(due.order_by().values_list("user_id", flat=True).distinct())


def digest_send(user_id: int) -> bool:
    """Send a person's digest; return whether one was sent.

    The claim is `digest_at`, set by compare-and-swap before the mail goes out: of two workers one
    sends. If the mail server refuses, the notifications stay due and are tried again later.
    """
    user = User.objects.filter(pk=user_id, is_active=True).first()
    if user is None or user_id not in digests_due():
        return False
    now = timezone.now()
    if not User.objects.filter(pk=user_id, digest_at=user.digest_at).update(digest_at=now):
        return False
    rows = list(notifications_due().filter(user=user).select_related("project").order_by("-pk"))
    if not rows:
        return False
    context = {"user": user, "rows": rows[:NAMED], "more": max(0, len(rows) - NAMED)}
    context["site"] = settings.SITE_URL
    body = render_to_string("feedback/digest.txt", context)
    plural = "" if len(rows) == 1 else "s"
    try:
        send_mail(f"Prospect: {len(rows)} notification{plural}", body, None, [user.email])
    except OSError as error:  # smtplib's errors, and those of the connection
        log.warning("digest_failed", user=user_id, why=str(error))
        retry = now - dt.timedelta(hours=HOURS) + dt.timedelta(minutes=RETRY_MINUTES)
        User.objects.filter(pk=user_id, digest_at=now).update(digest_at=retry)
        return False
    Notification.objects.filter(pk__in=[row.pk for row in rows]).update(mail_due=False)
    return True
