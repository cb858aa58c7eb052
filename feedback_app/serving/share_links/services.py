"""Services of share links and their visitors.

Link limits cap cost; visitor limits cap individual use; both also have a limit per minute. Each
visitor is one person; for the cap on a person's share of a snapshot all visitors of a link are one.
"""

import datetime as dt
import secrets
from collections.abc import Callable

from django.db import transaction
from django.db.models import F, QuerySet
from django.dispatch import receiver
from django.urls import reverse
from django.utils import timezone

from feedback_app.accounts.audit import audit
from feedback_app.accounts.models import User
from feedback_app.accounts.tokens import digest_of
from feedback_app.db.rate_limit import minute_take
from feedback_app.feedback.members.services import admin_rights_end
from feedback_app.feedback.models import (
    BASE_VERSION,
    Completion,
    NotificationKind,
    Project,
    Source,
    Verdict,
    Vote,
)
from feedback_app.feedback.notifications.services import notify
from feedback_app.feedback.votes.services import vote_cast, vote_undo
from feedback_app.serving.demo.conversations import version_exists
from feedback_app.serving.models import Conversation, ShareLink, ShareVisitor
from feedback_app.web.errors import UserError

PREFIX_LENGTH = 6
VISITOR_MESSAGES_A_MINUTE = 6
LINK_MESSAGES_A_MINUTE = 60
#: So many messages before a link's limit its counter is read again, to notice who takes the last.
NEARLY = 50


class LimitReached(UserError):
    """A limit is reached; visitors see the message. `wait` in seconds; 0: permanently."""

    def __init__(self, message: str, *, wait: int = 0) -> None:
        super().__init__(message)
        self.wait = wait


def link_create(
    *,
    project: Project,
    label: str,
    choice: str,
    days: int,
    messages_limit: int,
    messages_each: int,
    votes_limit: int,
    by: User,
) -> tuple[ShareLink, str]:
    """Create a link; return it with its secret, of which only the digest is stored."""
    if choice != Conversation.LIVE and not version_exists(project, choice):
        raise UserError("This project has no such version.")
    secret = secrets.token_urlsafe(24)
    with transaction.atomic():
        link = ShareLink.objects.create(
            project=project,
            label=label,
            prefix=secret[:PREFIX_LENGTH],
            digest=digest_of(secret),
            choice=choice,
            messages_limit=messages_limit,
            messages_each=messages_each,
            votes_limit=votes_limit,
            expires_at=timezone.now() + dt.timedelta(days=days),
            created_by=by,
        )
        audit(project=project, actor=by, action="share.create", target=str(link))
    return link, secret


def link_revoke(*, link: ShareLink, by: User | None) -> bool:
    """End a link and its answers in progress; return False if it was revoked before."""
    with transaction.atomic():
        ended = ShareLink.objects.filter(pk=link.pk, revoked_at=None).update(
            revoked_at=timezone.now()
        )
        if ended:
            audit(project=link.project, actor=by, action="share.revoke", target=str(link))
    return bool(ended)


@receiver(admin_rights_end)
def links_revoke(*, project: Project, user: User, by: User | None, **_: object) -> list[str]:
    """Revoke the links of a person who is no admin any more; return their names."""
    links = links_open().filter(project=project, created_by=user).order_by("pk")
    return [f"share link {link}" for link in links if link_revoke(link=link, by=by)]


def links_open() -> QuerySet[ShareLink]:
    """Return the links that are neither revoked nor expired."""
    return ShareLink.objects.filter(revoked_at=None, expires_at__gt=timezone.now())


def link_find(secret: str) -> ShareLink | None:
    """Return the open link with this secret, or None; also if its version was discarded."""
    links = links_open().select_related("project").filter(project__archived_at=None)
    link = links.filter(digest=digest_of(secret)).first()
    if link is None or link.choice in (Conversation.LIVE, BASE_VERSION):
        return link
    return link if link.project.adapters.usable().filter(name=link.choice).exists() else None


def link_is_open(link: ShareLink) -> Callable[[], bool]:
    """Return a function that reads whether a link is still open."""
    return lambda: links_open().filter(pk=link.pk).exists()


# -- visitors


def visitor_create(link: ShareLink) -> ShareVisitor:
    """Create a visitor, whose user cannot sign in and is a member of no project."""
    with transaction.atomic():
        user = User.objects.create_service(name=f"Visitor of {link.label}")
        return ShareVisitor.objects.create(link=link, user=user)


def message_count(*, link: ShareLink, visitor: ShareVisitor) -> None:
    """Count one message of a visitor. Raises LimitReached.

    Call it in the message's transaction, so that a message that is refused later is not counted.
    """
    for row, limit in (
        (ShareVisitor.objects.filter(pk=visitor.pk), VISITOR_MESSAGES_A_MINUTE),
        (ShareLink.objects.filter(pk=link.pk), LINK_MESSAGES_A_MINUTE),
    ):
        if wait := minute_take(row, limit=limit):
            raise LimitReached(f"Too many messages: wait {wait} seconds, then continue.", wait=wait)
    each = ShareVisitor.objects.filter(pk=visitor.pk, messages_used__lt=link.messages_each)
    if not each.update(messages_used=F("messages_used") + 1):
        raise LimitReached(
            f"You have sent the {link.messages_each:,} messages that this link allows each "
            "visitor. Thank you for trying it."
        )
    in_total = ShareLink.objects.filter(pk=link.pk, messages_used__lt=F("messages_limit"))
    if not in_total.update(messages_used=F("messages_used") + 1):
        raise LimitReached(
            "This link has reached its limit of messages. Ask the person who sent it to you for "
            "a new one."
        )
    if link.messages_used + NEARLY >= link.messages_limit:
        used_up_notify(link, "messages")


def used_up_notify(link: ShareLink, what: str) -> None:
    """Tell the project's admins once that a link has used up its messages or votes."""
    used = {f"{what}_used__gte": F(f"{what}_limit")}
    if ShareLink.objects.filter(pk=link.pk, **used).exists():
        notify(
            project=link.project,
            kind=NotificationKind.QUOTA_REACHED,
            key=f"{link.pk}:{what}",
            text=f"The share link “{link.label}” has used up its {what}.",
            path=reverse("share-links", args=[link.project.slug]),
        )


def visitor_vote(
    *,
    link: ShareLink,
    visitor: ShareVisitor,
    completion: Completion,
    verdict: Verdict,
    reasons: list[str] | None,
    comment: str | None,
) -> None:
    """Cast or change a visitor's vote. Raises LimitReached at the link's limit of votes."""
    with transaction.atomic():
        locked = ShareLink.objects.select_for_update().get(pk=link.pk)
        if not Vote.objects.filter(completion=completion, user=visitor.user).exists():
            if locked.votes_used >= locked.votes_limit:
                raise LimitReached(
                    "This link has reached its limit of thumbs: this one was not saved. Thank you."
                )
            ShareLink.objects.filter(pk=link.pk).update(votes_used=F("votes_used") + 1)
            if locked.votes_used + 1 >= locked.votes_limit:
                used_up_notify(link, "votes")
        vote_cast(
            completion=completion,
            verdict=verdict,
            by=visitor.user,
            source=Source.DEMO,
            reasons=reasons,
            comment=comment,
        )


def visitor_undo(*, link: ShareLink, visitor: ShareVisitor, completion: Completion) -> None:
    """Undo a visitor's vote; it no longer counts towards the link's limit."""
    with transaction.atomic():
        ShareLink.objects.select_for_update().get(pk=link.pk)
        if vote_undo(completion=completion, by=visitor.user, source=Source.DEMO):
            ShareLink.objects.filter(pk=link.pk, votes_used__gt=0).update(
                votes_used=F("votes_used") - 1
            )
