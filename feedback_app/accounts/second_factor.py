"""Forms for codes of an authenticator app, each of which is accepted once.

allauth remembers a code for 30 seconds in the cache, but with MFA_TOTP_TOLERANCE it is valid for
longer. Here the database remembers the latest time step of which a code was accepted.

The steps are computed by private functions of allauth; tests/faults/test_sign_in_limits.py fails if
they change.
"""

from allauth.core.internal.cryptokit import compare_user_code
from allauth.mfa.adapter import get_adapter
from allauth.mfa.base import forms
from allauth.mfa.models import Authenticator
from allauth.mfa.totp.internal.auth import (
    format_hotp_value,
    hotp_value,
    yield_hotp_counters_from_time,
)
from cryptography.fernet import InvalidToken
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import Q, QuerySet

from feedback_app.accounts.adapter import FactorUnreadable
from feedback_app.accounts.sealing import unseal

#: In the authenticator's data: the latest time step of which a code was accepted.
LAST_STEP = "last_step"


def step_take(authenticator: Authenticator, code: str) -> bool:
    """Record the time step of a valid code; return False if that step or a later one was used."""
    with transaction.atomic():
        row = Authenticator.objects.select_for_update().get(pk=authenticator.pk)
        secret = unseal(row.data["secret"])
        steps = [
            step
            for step in yield_hotp_counters_from_time()
            if compare_user_code(actual=code, expected=format_hotp_value(hotp_value(secret, step)))
        ]
        if not steps or steps[0] <= row.data.get(LAST_STEP, 0):
            return False
        row.data[LAST_STEP] = steps[0]
        row.save(update_fields=["data"])
    return True


def factors_unreadable() -> QuerySet[Authenticator]:
    """Return the second factors that no known SECRET_KEY decrypts, and the recovery codes of people
    whose authenticator app is one of them."""
    rows = Authenticator.objects.order_by("pk")
    locked = [row for row in rows.iterator() if not readable(row)]
    apps = [row.user_id for row in locked if row.type == Authenticator.Type.TOTP]
    found: QuerySet[Authenticator] = rows.filter(
        Q(pk__in=[row.pk for row in locked]) | Q(user__in=apps)
    )
    return found


def readable(authenticator: Authenticator) -> bool:
    """Return whether the secret of an app, or the seed of recovery codes, can be decrypted."""
    try:
        unseal(authenticator.data.get("secret") or authenticator.data["seed"])
    except InvalidToken:
        return False
    return True


class CodeOnce(forms.BaseAuthenticateForm):
    """Refuses a code of an authenticator app that was used before."""

    authenticator: Authenticator

    def clean_code(self) -> str:
        try:
            code: str = super().clean_code()
        except FactorUnreadable as error:
            raise ValidationError(
                "Your code cannot be checked, as the server's SECRET_KEY has changed. Ask whoever "
                "runs the server to remove your second factor (manage.py forget_factors)."
            ) from error
        is_app = self.authenticator.type == Authenticator.Type.TOTP
        if is_app and not step_take(self.authenticator, code):
            raise get_adapter().validation_error("incorrect_code")
        return code


class AuthenticateForm(CodeOnce, forms.AuthenticateForm):
    """The second factor at sign-in."""


class ReauthenticateForm(CodeOnce, forms.ReauthenticateForm):
    """The second factor before an action."""
