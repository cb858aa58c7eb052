"""What can happen to share links, and to those who come by them.

Which limit holds what: the link's messages bound its cost, the visitor's its greed, and both are
counted in a minute as well. Each visitor is one person, so the cap on a person's share of a
snapshot holds for them; a ring of visitors is held by the link's own limit of thumbs.
"""

import datetime as dt
import secrets
from collections.abc import Callable

from django.db import transaction
from django.db.models import F, QuerySet
from django.utils import timezone

from feedback_app.accounts.audit import audit
from feedback_app.accounts.models import User
from feedback_app.accounts.tokens import digest_of
from feedback_app.db.rate_limit import minute_take
from feedback_app.feedback.models import BASE_VERSION, Completion, Project, Source, Verdict, Vote
from feedback_app.feedback.votes.services import vote_cast, vote_undo
from feedback_app.serving.demo.conversations import version_names
from feedback_app.serving.models import Conversation, ShareLink, ShareVisitor
from feedback_app.web.errors import UserError

PREFIX_LENGTH = 6
VISITOR_MESSAGES_A_MINUTE = 6
LINK_MESSAGES_A_MINUTE = 60


class TooMuch(UserError):
    """A limit is reached; the sentence is for visitors. `wait` is in seconds, 0: for good."""

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
    """A new link and its secret, which nobody can read again."""
    if choice not in {Conversation.LIVE, BASE_VERSION, *version_names(project)}:
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


def link_revoke(*, link: ShareLink, by: User) -> bool:
    """Ends a link for good, answers in progress included; False if it was over before."""
    with transaction.atomic():
        ended = ShareLink.objects.filter(pk=link.pk, revoked_at=None).update(
            revoked_at=timezone.now()
        )
        if ended:
            audit(project=link.project, actor=by, action="share.revoke", target=str(link))
    return bool(ended)


def links_open() -> QuerySet[ShareLink]:
    """Neither revoked nor expired."""
    return ShareLink.objects.filter(revoked_at=None, expires_at__gt=timezone.now())


def link_find(secret: str) -> ShareLink | None:
    """The open link with this secret; none if the version that it shows was discarded."""
    link = links_open().select_related("project").filter(digest=digest_of(secret)).first()
    if link is None or link.choice in (Conversation.LIVE, BASE_VERSION):
        return link
    return link if link.project.adapters.usable().filter(name=link.choice).exists() else None


def still_open(link: ShareLink) -> Callable[[], bool]:
    """Whether a link still holds, asked anew at every call."""
    return lambda: links_open().filter(pk=link.pk).exists()


# -- visitors


def visitor_create(link: ShareLink) -> ShareVisitor:
    """Somebody new, who cannot sign in and is a member of nothing."""
    with transaction.atomic():
        user = User.objects.create_service(name=f"Visitor of {link.label}")
        return ShareVisitor.objects.create(link=link, user=user)


def message_take(*, link: ShareLink, visitor: ShareVisitor) -> None:
    """Counts one message of a visitor. Raises TooMuch; call it in the message's transaction, so
    that one that is refused later costs nothing."""
    for row, limit in (
        (ShareVisitor.objects.filter(pk=visitor.pk), VISITOR_MESSAGES_A_MINUTE),
        (ShareLink.objects.filter(pk=link.pk), LINK_MESSAGES_A_MINUTE),
    ):
        if wait := minute_take(row, limit=limit):
            raise TooMuch(f"That was quick: wait {wait} seconds, then go on.", wait=wait)
    each = ShareVisitor.objects.filter(pk=visitor.pk, messages_used__lt=link.messages_each)
    if not each.update(messages_used=F("messages_used") + 1):
        raise TooMuch(
            f"You have sent the {link.messages_each:,} messages that this link allows each "
            "visitor. Thank you for trying it."
        )
    all_of_it = ShareLink.objects.filter(pk=link.pk, messages_used__lt=F("messages_limit"))
    if not all_of_it.update(messages_used=F("messages_used") + 1):
        raise TooMuch(
            "This link has taken all the messages it was made for. Ask whoever gave it to you "
            "for another."
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
    """A visitor's thumb, changed at will. Raises TooMuch where the link has no thumb left."""
    with transaction.atomic():
        locked = ShareLink.objects.select_for_update().get(pk=link.pk)
        if not Vote.objects.filter(completion=completion, user=visitor.user).exists():
            if locked.votes_used >= locked.votes_limit:
                raise TooMuch(
                    "This link has given all the thumbs it was made for. Thank you: this one is "
                    "not kept."
                )
            ShareLink.objects.filter(pk=link.pk).update(votes_used=F("votes_used") + 1)
        vote_cast(
            completion=completion,
            verdict=verdict,
            by=visitor.user,
            source=Source.DEMO,
            reasons=reasons,
            comment=comment,
        )


def visitor_undo(*, link: ShareLink, visitor: ShareVisitor, completion: Completion) -> None:
    """Takes a visitor's thumb back; the link may give it again."""
    with transaction.atomic():
        ShareLink.objects.select_for_update().get(pk=link.pk)
        if vote_undo(completion=completion, by=visitor.user, source=Source.DEMO):
            ShareLink.objects.filter(pk=link.pk, votes_used__gt=0).update(
                votes_used=F("votes_used") - 1
            )
