"""Secrets of API tokens, and their rate limit."""

import hashlib
import secrets

from django.conf import settings

from feedback_app.accounts.models import ApiToken
from feedback_app.db.rate_limit import minute_take

#: The prefix by which secret scanners and people recognise a token.
MARK = "prospect-"
PREFIX_LENGTH = len(MARK) + 6


def secret_new() -> str:
    """Return a new secret with 256 random bits."""
    return MARK + secrets.token_urlsafe(32)


def digest_of(secret: str) -> str:
    """Return the hash of a secret that is stored."""
    return hashlib.sha256(secret.encode(errors="replace")).hexdigest()


def token_find(secret: str) -> ApiToken | None:
    """Return the token with this secret, with its project and user, unless it was revoked.

    It may have expired: only who knows the secret may learn that.
    """
    tokens = ApiToken.objects.unrevoked().select_related("project", "user")
    return tokens.filter(digest=digest_of(secret)).first()


def token_use(token: ApiToken) -> int:
    """Count one request; return 0 if it is allowed, else the seconds until the next one is."""
    row = ApiToken.objects.filter(pk=token.pk)
    return minute_take(row, limit=settings.API_REQUESTS_PER_MINUTE)
