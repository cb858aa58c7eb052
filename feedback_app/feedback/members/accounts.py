"""Deactivating and reactivating accounts, which affects all projects of the person."""

from django.db import transaction

from feedback_app.accounts.audit import audit, person_name
from feedback_app.accounts.models import Membership, Role, User
from feedback_app.accounts.sessions import sessions_end
from feedback_app.feedback.members.services import owners_hold
from feedback_app.feedback.models import Lease
from feedback_app.web.errors import UserError


def may_close(*, user: User, by: User) -> bool:
    """Return whether `by` may deactivate or reactivate this account.

    Superusers may, and people who own every project that the person is in; nobody may for
    themselves.
    """
    if by.pk == user.pk or (user.is_superuser and not by.is_superuser):
        return False
    owned = Membership.objects.filter(user=by, role=Role.OWNER).values("project")
    theirs = Membership.objects.filter(user=user)
    return by.is_superuser or (theirs.exists() and not theirs.exclude(project__in=owned).exists())


def account_deactivate(*, user: User, by: User) -> bool:
    """Sign the person out everywhere, end their streams and block sign-in; votes stay.

    Return False if the account is deactivated already.
    """
    return account_switch(user=user, by=by, on=False)


def account_reactivate(*, user: User, by: User) -> bool:
    """Allow sign-in again; return False if it is allowed already."""
    return account_switch(user=user, by=by, on=True)


def account_switch(*, user: User, by: User, on: bool) -> bool:
    with transaction.atomic():
        if not may_close(user=user, by=by):
            raise UserError(
                "Only an owner of every project that this person is in can deactivate or "
                "reactivate the account. You can remove them from this project."
            )
        memberships = Membership.objects.filter(user=user).select_related("project")
        if not on:
            for owned in memberships.filter(role=Role.OWNER).order_by("project"):
                owners_hold(owned.project, without=user)
        if not User.objects.filter(pk=user.pk, is_active=not on).update(is_active=on):
            return False
        if not on:
            # running streams check the account while they write (serving/demo/generation.py)
            sessions_end(user)
            Lease.objects.filter(user=user).delete()
        for membership in memberships:
            audit(
                project=membership.project,
                actor=by,
                action="account.reactivate" if on else "account.deactivate",
                target=person_name(user),
            )
    user.is_active = on
    return True
