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
from django.db import transaction

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


class CodeOnce(forms.BaseAuthenticateForm):
    """Refuses a code of an authenticator app that was used before."""

    authenticator: Authenticator

    def clean_code(self) -> str:
        code: str = super().clean_code()
        is_app = self.authenticator.type == Authenticator.Type.TOTP
        if is_app and not step_take(self.authenticator, code):
            raise get_adapter().validation_error("incorrect_code")
        return code


class AuthenticateForm(CodeOnce, forms.AuthenticateForm):
    """The second factor at sign-in."""


class ReauthenticateForm(CodeOnce, forms.ReauthenticateForm):
    """The second factor before an action."""
