"""Settings of django-allauth in code.

One of them is a private method: allauth counts wrong passwords by address, so that others can
lock the owner of a known address out, and has no public hook for another key.
tests/faults/test_sign_in_limits.py fails if the method is renamed.
"""

from typing import Any

from allauth.account.adapter import DefaultAccountAdapter
from allauth.core.internal.ratelimit import get_ip
from allauth.mfa.adapter import DefaultMFAAdapter
from cryptography.fernet import InvalidToken
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest

from feedback_app.accounts.sealing import seal, unseal


class ClosedSignup(DefaultAccountAdapter):
    """No sign-up: people are invited to projects."""

    def is_open_for_signup(self, request: HttpRequest) -> bool:
        return False

    def _get_login_attempts_cache_key(self, request: HttpRequest, **credentials: Any) -> str:
        """Count wrong passwords by e-mail address and client, whatever the Host header says."""
        return f"{str(credentials.get('email', '')).lower()}:{get_ip(request)}"


class FactorUnreadable(PermissionDenied):
    """A second factor was encrypted with a SECRET_KEY that is not known any more."""

    #: Templates show nothing in place of the codes.
    silent_variable_failure = True


class SealedFactors(DefaultMFAAdapter):
    """Second factors are stored encrypted."""

    def encrypt(self, text: str) -> str:
        return seal(text)

    def decrypt(self, encrypted_text: str) -> str:
        try:
            return unseal(encrypted_text)
        except InvalidToken as error:
            raise FactorUnreadable(
                "Your second factor cannot be read, as the server's SECRET_KEY has changed. Turn "
                "two-factor authentication off and set it up again."
            ) from error
