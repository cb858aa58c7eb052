"""What can happen to a project's members and to the links that invite people."""

import datetime as dt
import secrets

from django.db import transaction
from django.db.models import F
from django.utils import timezone

from feedback_app.accounts.audit import audit
from feedback_app.accounts.models import (
    Invitation,
    Membership,
    Role,
    User,
    roles_from,
    roles_given_by,
)
from feedback_app.accounts.tokens import digest_of
from feedback_app.feedback.models import (
    Lease,
    Project,
)
from feedback_app.web.errors import UserError


def person_name(user: User) -> str:
    """How the audit trail names a person: by number, so that erasing them leaves no trace in it."""
    return f"person {user.pk}"


def owners_hold(project: Project, *, without: User) -> None:
    """Raises UserError if `without` is the project's last owner who can act. Holds the project's
    row, so that of two owners who leave at once one stays."""
    Project.objects.select_for_update().get(pk=project.pk)
    owners = project.memberships.filter(role=Role.OWNER)
    if owners.filter(user=without).exists():
        others = owners.exclude(user=without).filter(user__is_active=True)
        if not others.exists():
            raise UserError(f"{project} needs an owner: make somebody else one first.")


def may_give(actor: Membership, *roles: str) -> None:
    """Raises UserError unless the actor may give and take all of these roles."""
    if set(roles) - set(roles_given_by(Role(actor.role))):
        raise UserError("Only an owner makes or changes owners and admins.")


def member_change(*, membership: Membership, role: Role, actor: Membership) -> bool:
    """Another role for a member; False if it is theirs already."""
    with transaction.atomic():
        if role != Role.OWNER:
            owners_hold(membership.project, without=membership.user)
        membership = Membership.objects.select_for_update().get(pk=membership.pk)
        may_give(actor, membership.role, role)
        if membership.role == role:
            return False
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
    return True


def member_remove(*, membership: Membership, actor: Membership) -> None:
    """Ends a membership; votes stay, what the person holds goes back to the queue. Everybody may
    leave by themselves."""
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


# -- invitations


def invitations_end(project: Project, *, made_by: User, but: list[Role]) -> None:
    """Revokes the open links of somebody who may not give these roles any more, except `but`."""
    links = Invitation.objects.open().filter(project=project, created_by=made_by)
    links.exclude(role__in=but).update(revoked_at=timezone.now())


def invitation_create(
    *, role: Role, days: int, max_uses: int, actor: Membership, email: str = ""
) -> tuple[Invitation, str]:
    """A new link and its secret, which nobody can read again. One for an address has one use."""
    may_give(actor, role)
    if email and max_uses != 1:
        raise UserError("A link for one address is used once: leave the address or the number.")
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
    """Ends a link for good; False if it was over before."""
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
    """The open invitation with this secret; while its maker is deactivated it lets nobody in."""
    invitations = Invitation.objects.open().select_related("project", "created_by")
    return invitations.filter(digest=digest_of(secret), created_by__is_active=True).first()


def invitation_accept(*, invitation: Invitation, user: User) -> Membership:
    """Makes the person a member, or gives a member the higher role. Raises UserError if the link
    was used up meanwhile or is for somebody else."""
    if invitation.email and invitation.email != user.email:
        raise UserError(f"This invitation is for {invitation.email}: sign in with that address.")
    project = invitation.project
    with transaction.atomic():
        Project.objects.select_for_update().get(pk=project.pk)
        there = Membership.objects.filter(project=project, user=user).first()
        if there is not None and there.role in roles_from(Role(invitation.role)):
            return there  # a second click, or somebody who may do that already
        # of many people at once no more come in than the link allows
        taken = Invitation.objects.open().filter(pk=invitation.pk).update(used=F("used") + 1)
        if not taken:
            raise UserError("This invitation was used up or ended just now: ask for another.")
        audit(
            project=project,
            actor=user,
            action="invitation.accept",
            target=str(invitation),
        )
        return member_set(project=project, user=user, role=Role(invitation.role))


def invited_join(*, invitation: Invitation, email: str, name: str, password: str) -> User:
    """An account for somebody who was invited, and the membership. Raises UserError."""
    email = email.lower()
    with transaction.atomic():
        if User.objects.filter(email=email).exists():
            raise UserError("There is an account with this address: sign in instead.")
        user = User.objects.create_user(email, password, name=name)
        invitation_accept(invitation=invitation, user=user)
    return user


def member_set(*, project: Project, user: User, role: Role) -> Membership:
    """Gives `user` this role in the project, whatever it was before."""
    membership, _ = Membership.objects.update_or_create(
        project=project, user=user, defaults={"role": role}
    )
    return membership
