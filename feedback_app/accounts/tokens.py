"""Secrets of API tokens, and how many requests a minute one may make."""

import hashlib
import secrets

from django.conf import settings
from django.db.models import F
from django.utils import timezone

from feedback_app.accounts.models import ApiToken
from feedback_app.db.prepared import Prepared

#: So that secret scanners and people recognise one.
MARK = "prospect-"
PREFIX_LENGTH = len(MARK) + 6
#: The valid token with a digest, of which there is one at most.
TOKEN = Prepared[ApiToken](
    lambda **values: ApiToken.objects.valid().select_related("project", "user").filter(**values)
)


def secret_new() -> str:
    """A new secret with 256 random bits."""
    return MARK + secrets.token_urlsafe(32)


def digest_of(secret: str) -> str:
    """What is kept of a secret."""
    return hashlib.sha256(secret.encode(errors="replace")).hexdigest()


def token_find(secret: str) -> ApiToken | None:
    """The valid token with this secret, with its project and user."""
    return TOKEN.first(digest=digest_of(secret))


def token_use(token: ApiToken) -> int:
    """Counts one request; returns 0 if it may go on, else the seconds until the next may.

    A fixed window of a minute, kept in the token's row: the database decides, so the limit holds
    over all processes and hosts. The window's start is the time of last use, written once a
    minute.
    """
    now = timezone.now()
    minute = now.replace(second=0, microsecond=0)
    row = ApiToken.objects.filter(pk=token.pk)
    # a window that a faster clock began counts as well
    begun = row.filter(last_used_at__gte=minute)
    room = begun.filter(used_in_minute__lt=settings.API_REQUESTS_PER_MINUTE)
    one_more = {"used_in_minute": F("used_in_minute") + 1}
    allowed = (
        room.update(**one_more)
        or row.exclude(last_used_at__gte=minute).update(last_used_at=minute, used_in_minute=1)
        # another process may have begun the minute between the two
        or room.update(**one_more)
    )
    return 0 if allowed else 60 - now.second
