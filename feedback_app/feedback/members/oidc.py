"""Sign-in by an OpenID Connect server: for people who are here already, or were invited."""

from typing import Any

from allauth.socialaccount.adapter import DefaultSocialAccountAdapter
from django.db import transaction
from django.http import HttpRequest

from feedback_app.accounts.models import Invitation, User
from feedback_app.feedback.members.services import invitation_accept
from feedback_app.web.errors import UserError

#: Where an invitation waits in the session while its person is at the server.
WAITING = "invitation"


class InvitedSignup(DefaultSocialAccountAdapter):
    """Whom the server knows is let in if an account has the address that it has verified, or if
    they come from the page of an open invitation."""

    def authenticate_by_email(self, sociallogin: Any) -> tuple[User, str] | None:
        # some servers send "false", which is a true string
        for address in sociallogin.email_addresses:
            address.verified = address.verified is True
        found: tuple[User, str] | None = super().authenticate_by_email(sociallogin)
        return found

    def is_open_for_signup(self, request: HttpRequest, sociallogin: Any) -> bool:
        invitation = waiting(request)
        verified = {a.email.lower() for a in sociallogin.email_addresses if a.verified}
        if invitation is None or not verified:
            return False
        return not invitation.email or invitation.email in verified

    def populate_user(self, request: HttpRequest, sociallogin: Any, data: dict[str, Any]) -> User:
        user: User = super().populate_user(request, sociallogin, data)
        user.email = user.email.lower()
        user.name = str(data.get("name") or "")[:100]
        return user

    def save_user(self, request: HttpRequest, sociallogin: Any, form: object = None) -> User:
        """The account and the membership, or neither."""
        invitation = waiting(request)
        with transaction.atomic():
            user: User = super().save_user(request, sociallogin, form)
            if invitation is None:
                raise UserError("The invitation is over: ask for another.")
            invitation_accept(invitation=invitation, user=user)
        request.session.pop(WAITING, None)
        return user


def waiting(request: HttpRequest) -> Invitation | None:
    """The open invitation that the person comes from."""
    pk = request.session.get(WAITING)
    open_ones = Invitation.objects.open().filter(created_by__is_active=True)
    return open_ones.select_related("project").filter(pk=pk).first() if pk else None
