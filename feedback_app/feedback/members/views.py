"""Members of a project and its invitations."""

from smtplib import SMTPException
from typing import Any

import structlog
from django.contrib import messages
from django.core.mail import send_mail
from django.http import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache

from feedback_app.accounts.models import Invitation, Membership, Role, roles_given_by
from feedback_app.feedback.access import project_view
from feedback_app.feedback.members.forms import InvitationForm, RoleForm
from feedback_app.feedback.members.listing import PeopleFilter
from feedback_app.feedback.members.services import (
    invitation_create,
    invitation_revoke,
    member_change,
    member_remove,
)
from feedback_app.feedback.models import Project
from feedback_app.feedback.reliability.services import reliability_of
from feedback_app.web.forms import NoFields, query_page, validated
from feedback_app.web.htmx import HtmxHttpRequest
from feedback_app.web.responses import action_view, page

log = structlog.get_logger(__name__)

INVITATIONS_SHOWN = 50
TEMPLATE = "feedback/people.html"


@project_view(Role.ADMIN)
def people(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    """Show the members and a form for an invitation."""
    if request.method == "POST":
        return invitation_new(request, project)
    return people_list(request, project)


@page
def people_list(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    context = people_context(request, project)
    return render(request, f"{TEMPLATE}#list" if request.htmx else TEMPLATE, context)


def people_context(
    request: HtmxHttpRequest, project: Project, form: InvitationForm | None = None
) -> dict[str, Any]:
    roles = roles_given_by(Role(request.membership.role))
    chosen = PeopleFilter.of(request)
    page = chosen.page(project, query_page(request))
    known = reliability_of(project)
    for member in page:
        member.reliability = known.get(member.user_id)
    return {
        "project": project,
        "chosen": chosen,
        "roles": roles,
        "all_roles": Role.choices,
        "page": page,
        "query": chosen.query(),
        "form": form or InvitationForm(roles=roles),
        "invitations": project.invitations.select_related("created_by").order_by("-pk")[
            :INVITATIONS_SHOWN
        ],
    }


@never_cache
@action_view
def invitation_new(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    """Create an invitation. Its link is in this response (and the mail) only: no redirect."""
    form = InvitationForm(request.POST, roles=roles_given_by(Role(request.membership.role)))
    if not form.is_valid():
        return render(request, TEMPLATE, people_context(request, project, form), status=400)
    values = form.cleaned_data
    request.membership.user = request.user
    invitation, secret = invitation_create(
        role=Role(values["role"]),
        days=values["days"],
        max_uses=values["max_uses"],
        email=values["email"],
        actor=request.membership,
    )
    link = request.build_absolute_uri(reverse("invitation", args=[secret]))
    context = people_context(request, project) | {
        "invitation": invitation,
        "link": link,
        "mailed": bool(invitation.email) and invitation_mail(invitation, link=link),
    }
    return render(request, TEMPLATE, context)


def invitation_mail(invitation: Invitation, *, link: str) -> bool:
    """Mail the link to its address; return whether the mail server accepted it."""
    text = (
        f"{invitation.created_by} invites you to the project {invitation.project.name} "
        f"as {invitation.get_role_display().lower()}.\n\n{link}\n\n"
        f"The link is for you only and expires on {invitation.expires_at:%d %B %Y}.\n"
    )
    title = f"Invitation to {' '.join(invitation.project.name.split())}"
    try:
        send_mail(title, text, None, [invitation.email])
    except (OSError, SMTPException) as error:
        log.warning("invitation_mail_failed", why=str(error))
        return False
    return True


@project_view(Role.ADMIN, archived=True)
@action_view
def invitation_revoke_view(request: HtmxHttpRequest, project: Project, pk: int) -> HttpResponseBase:
    """Revoke an invitation."""
    invitation = get_object_or_404(project.invitations, pk=pk)
    validated(NoFields(request.POST))
    if invitation_revoke(invitation=invitation, actor=request.membership):
        messages.success(request, "Invitation revoked. Nobody can join with it any more.")
    return redirect("people", project.slug)


# -- one member


def member_of(project: Project, pk: int) -> Membership:
    """Return the membership of the person with this number. Raise Http404."""
    found: Membership = get_object_or_404(
        project.memberships.select_related("user", "project"), user=pk
    )
    return found


def revoked_text(names: list[str]) -> str:
    """Return a sentence about what ended with a person's rights, or nothing."""
    return f" Ended with their rights: {', '.join(names)}." if names else ""


@project_view(Role.ADMIN)
@action_view
def member_change_view(request: HtmxHttpRequest, project: Project, pk: int) -> HttpResponseBase:
    """Give a member another role."""
    membership = member_of(project, pk)
    role = Role(validated(RoleForm(request.POST))["role"])
    revoked = member_change(membership=membership, role=role, actor=request.membership)
    if revoked is not None:
        text = f"{membership.user} is now {role.label.lower()}.{revoked_text(revoked)}"
        messages.success(request, text)
    return redirect("people", project.slug)


@project_view(Role.ADMIN, archived=True)
@action_view
def member_remove_view(request: HtmxHttpRequest, project: Project, pk: int) -> HttpResponseBase:
    """Remove a member."""
    membership = member_of(project, pk)
    validated(NoFields(request.POST))
    revoked = member_remove(membership=membership, actor=request.membership)
    text = f"{membership.user} was removed. Their votes stay.{revoked_text(revoked)}"
    messages.success(request, text)
    if membership.user_id == request.user.pk:
        return redirect("home")  # they have lost access to the list
    return redirect("people", project.slug)
