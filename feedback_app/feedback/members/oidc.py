"""Sign-in by an OpenID Connect server, for existing accounts and invited people."""

from typing import Any

from allauth.account.models import EmailAddress
from allauth.socialaccount.adapter import DefaultSocialAccountAdapter
from allauth.socialaccount.providers.base import AuthProcess
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import HttpRequest

from feedback_app.accounts.models import Invitation, User
from feedback_app.feedback.members.services import invitation_accept
from feedback_app.web.errors import UserError

#: The session key of an invitation while its person is at the server.
WAITING = "invitation"


class InvitedSignup(DefaultSocialAccountAdapter):
    """Admit people whose verified address has an account, or who come from an open invitation."""

    def pre_social_login(self, request: HttpRequest, sociallogin: Any) -> None:
        """Refuse to link an identity to the account that is signed in.

        A link on another site could start that; identities are linked by their verified address.
        """
        if sociallogin.state.get("process") != AuthProcess.LOGIN:
            raise PermissionDenied("Sign-in is the only use of the server.")

    def authenticate_by_email(self, sociallogin: Any) -> tuple[User, str] | None:
        """Return the account whose own address is the verified one, and that address.

        allauth would also take an account that has only claimed the address. The server has shown
        whose it is, so such claims end here.
        """
        for address in sociallogin.email_addresses:
            # some servers send the string "false", which is truthy
            address.verified = address.verified is True
            if not address.verified:
                continue
            email = address.email.lower()
            EmailAddress.objects.filter(email__iexact=email).exclude(user__email=email).delete()
            user = User.objects.filter(email=email).first()
            if user is not None:
                return user, email
        return None

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
        """Create the account and the membership, or neither."""
        invitation = waiting(request)
        with transaction.atomic():
            user: User = super().save_user(request, sociallogin, form)
            if invitation is None:
                raise UserError("This invitation is no longer valid. Ask for a new one.")
            invitation_accept(invitation=invitation, user=user)
        request.session.pop(WAITING, None)
        return user


def waiting(request: HttpRequest) -> Invitation | None:
    """Return the open invitation that the person comes from."""
    pk = request.session.get(WAITING)
    invitations = Invitation.objects.admitting().select_related("project")
    return invitations.filter(pk=pk).first() if pk else None
