"""Changing members and invitations of a project."""

import datetime as dt
import secrets
from typing import cast

from django.db import IntegrityError, transaction
from django.db.models import F
from django.dispatch import Signal
from django.utils import timezone

from feedback_app.accounts.audit import audit, person_name
from feedback_app.accounts.models import (
    ApiToken,
    Invitation,
    Membership,
    Role,
    User,
    roles_from,
    roles_given_by,
)
from feedback_app.accounts.tokens import digest_of
from feedback_app.feedback.access import ARCHIVED
from feedback_app.feedback.models import (
    Lease,
    Project,
)
from feedback_app.feedback.tokens.services import token_revoke
from feedback_app.feedback.webhooks.services import webhook_switch
from feedback_app.web.errors import UserError

#: Sent with `project`, `user` and `by`, in the transaction that ends a person's rights of an admin.
#: A receiver revokes what they made with these rights, and returns its names.
admin_rights_end = Signal()


def owners_hold(project: Project, *, without: User) -> None:
    """Lock the project; raise UserError if `without` is its last active owner.

    The lock makes sure that one of two owners stays if both leave at once.
    """
    Project.objects.select_for_update().get(pk=project.pk)
    owners = project.memberships.filter(role=Role.OWNER)
    if owners.filter(user=without).exists():
        others = owners.exclude(user=without).filter(user__is_active=True)
        if not others.exists():
            raise UserError(f"{project} needs an owner. Make another member an owner first.")


def may_give(actor: Membership, *roles: str) -> None:
    """Raise UserError unless the actor may give and take all of these roles."""
    if set(roles) - set(roles_given_by(Role(actor.role))):
        raise UserError("Only owners can add or change owners and admins.")


def admin_rights_revoke(*, project: Project, user: User, by: User | None) -> list[str]:
    """Revoke the API tokens and share links that the person made, and pause their webhooks; return
    their names.

    They may know the secrets, and where the events go. Call it in the transaction that ends their
    rights of an admin.
    """
    tokens = ApiToken.objects.unrevoked().filter(project=project, created_by=user).order_by("pk")
    revoked = [f"API token {token}" for token in tokens if token_revoke(token=token, by=by)]
    # paused, not deleted: what uses the events belongs to the project, and an admin may resume it
    webhooks = project.webhooks.filter(active=True, created_by=user).order_by("pk")
    revoked += [
        f"webhook {webhook} (paused)"
        for webhook in webhooks
        if webhook_switch(webhook=webhook, on=False, by=by)
    ]
    for _, names in admin_rights_end.send(Membership, project=project, user=user, by=by):
        revoked += cast("list[str]", names)
    return revoked


def member_change(*, membership: Membership, role: Role, actor: Membership) -> list[str] | None:
    """Give a member another role; return what was revoked, or None if they have it already."""
    with transaction.atomic():
        if role != Role.OWNER:
            owners_hold(membership.project, without=membership.user)
        membership = Membership.objects.select_for_update().get(pk=membership.pk)
        may_give(actor, membership.role, role)
        if membership.role == role:
            return None
        before, membership.role = membership.role, role
        membership.save(update_fields=["role"])
        invitations_end(membership.project, made_by=membership.user, but=roles_given_by(role))
        audit(
            project=membership.project,
            actor=actor.user,
            action="member.change",
            target=person_name(membership.user),
            reason=f"{before} → {role}",
        )
        if role in roles_from(Role.ADMIN):
            return []
        return admin_rights_revoke(project=membership.project, user=membership.user, by=actor.user)


def member_remove(*, membership: Membership, actor: Membership) -> list[str]:
    """End a membership and return what was revoked; votes stay, leased items return to the queue.

    Every member may leave.
    """
    with transaction.atomic():
        owners_hold(membership.project, without=membership.user)
        if membership.user_id != actor.user_id:
            may_give(actor, membership.role)
        Lease.objects.filter(
            completion__project=membership.project_id, user=membership.user_id
        ).delete()
        invitations_end(membership.project, made_by=membership.user, but=[])
        Membership.objects.filter(pk=membership.pk).delete()
        audit(
            project=membership.project,
            actor=actor.user,
            action="member.remove",
            target=person_name(membership.user),
            reason=membership.role,
        )
        return admin_rights_revoke(project=membership.project, user=membership.user, by=actor.user)


# -- invitations


def invitations_end(project: Project, *, made_by: User, but: list[Role]) -> None:
    """Revoke the open invitations of a person who may no longer give their roles, except `but`."""
    links = Invitation.objects.open().filter(project=project, created_by=made_by)
    links.exclude(role__in=but).update(revoked_at=timezone.now())


def invitation_create(
    *, role: Role, days: int, max_uses: int, actor: Membership, email: str = ""
) -> tuple[Invitation, str]:
    """Return a new invitation and its secret, which is not stored.

    An invitation for an address has one use. Raise UserError.
    """
    may_give(actor, role)
    if email and max_uses != 1:
        raise UserError("A link for one address works once. Remove the address or set 1 use.")
    secret = secrets.token_urlsafe(32)
    with transaction.atomic():
        invitation = Invitation.objects.create(
            project=actor.project,
            role=role,
            email=email.lower(),
            prefix=secret[:6],
            digest=digest_of(secret),
            max_uses=max_uses,
            expires_at=timezone.now() + dt.timedelta(days=days),
            created_by=actor.user,
        )
        audit(
            project=actor.project,
            actor=actor.user,
            action="invitation.create",
            target=str(invitation),
        )
    return invitation, secret


def invitation_revoke(*, invitation: Invitation, actor: Membership) -> bool:
    """Revoke an invitation; return False if it was over already."""
    may_give(actor, invitation.role)
    with transaction.atomic():
        open_ones = Invitation.objects.open().filter(pk=invitation.pk)
        ended = open_ones.update(revoked_at=timezone.now())
        if ended:
            audit(
                project=invitation.project,
                actor=actor.user,
                action="invitation.revoke",
                target=str(invitation),
            )
    return bool(ended)


def invitation_find(secret: str) -> Invitation | None:
    """Return the open invitation with this secret; None while its creator is deactivated or its
    project archived."""
    invitations = Invitation.objects.admitting().select_related("project", "created_by")
    return invitations.filter(digest=digest_of(secret)).first()


def invitation_accept(*, invitation: Invitation, user: User) -> Membership:
    """Make the person a member, or raise their role.

    Raise UserError if the invitation was used up meanwhile or is for another address, and for an
    archived project.
    """
    if invitation.email and invitation.email != user.email:
        raise UserError(f"This invitation is for {invitation.email}. Sign in with that address.")
    with transaction.atomic():
        project = Project.objects.select_for_update().get(pk=invitation.project_id)
        if project.archived_at is not None:
            raise UserError(ARCHIVED)
        there = Membership.objects.filter(project=project, user=user).first()
        if there is not None and there.role in roles_from(Role(invitation.role)):
            return there  # a second click, or a member with at least this role
        # atomic, so that concurrent requests do not exceed the limit
        taken = Invitation.objects.open().filter(pk=invitation.pk).update(used=F("used") + 1)
        if not taken:
            raise UserError("This invitation has just been used up or revoked. Ask for a new one.")
        audit(
            project=project,
            actor=user,
            action="invitation.accept",
            target=str(invitation),
        )
        return member_set(project=project, user=user, role=Role(invitation.role))


def invited_join(*, invitation: Invitation, email: str, name: str, password: str) -> User:
    """Create an account for an invited person, with the membership. Raise UserError."""
    with transaction.atomic():
        try:
            with transaction.atomic():
                user = User.objects.create_user(email.lower(), password, name=name)
        except IntegrityError as error:
            raise UserError(
                "There is already an account with this address. Sign in instead."
            ) from error
        invitation_accept(invitation=invitation, user=user)
    return user


def member_set(*, project: Project, user: User, role: Role) -> Membership:
    """Give `user` this role in the project, whatever it was before."""
    membership, _ = Membership.objects.update_or_create(
        project=project, user=user, defaults={"role": role}
    )
    return membership
