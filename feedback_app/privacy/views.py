"""A person's page: activity, effect, export and erasure; for themselves and for admins."""

from typing import Any

from allauth.account.decorators import reauthentication_required
from django.contrib import messages
from django.contrib.auth import logout
from django.http import HttpResponseBase, StreamingHttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST

from feedback_app.accounts.models import ApiToken, Membership, Role, User, roles_given_by
from feedback_app.feedback.access import project_view
from feedback_app.feedback.members.accounts import account_deactivate, account_reactivate, may_close
from feedback_app.feedback.members.services import may_give, member_remove
from feedback_app.feedback.members.views import member_of, revoked_text
from feedback_app.feedback.models import Project, Webhook
from feedback_app.privacy.activity import days_of, work_in
from feedback_app.privacy.erasure import person_erase, projects_of, used_text
from feedback_app.privacy.export import person_json
from feedback_app.privacy.forgetting.links import erasure_link
from feedback_app.privacy.forms import ApiPersonForm, EraseForm
from feedback_app.training.models import Erasure
from feedback_app.web.errors import UserError
from feedback_app.web.forms import NoFields, validated
from feedback_app.web.htmx import HtmxHttpRequest
from feedback_app.web.responses import action_view, error_response, page

TEMPLATE = "serving/person.html"


def person_context(person: User, projects: list[Project]) -> dict[str, Any]:
    days = days_of(person, projects)
    return {
        "person": person,
        "works": [work_in(project, person) for project in projects],
        "days": days,
        "days_total": sum(day.votes for day in days),
        "days_most": max(days, key=lambda day: day.votes),
    }


def tokens_made(person: User, projects: list[Project]) -> list[ApiToken]:
    """Return the person's valid tokens of these projects."""
    made = ApiToken.objects.valid().filter(created_by=person, project__in=projects)
    return list(made.select_related("project").order_by("project", "-pk"))


def webhooks_made(person: User, projects: list[Project]) -> list[Webhook]:
    """Return the webhooks that the person made and that get events of these projects."""
    made = Webhook.objects.filter(created_by=person, project__in=projects, active=True)
    return list(made.select_related("project").order_by("project", "-pk"))


# -- the own page


@require_http_methods(["GET", "HEAD"])
def me(request: HtmxHttpRequest) -> HttpResponseBase:
    """Show the own page, over all projects."""
    projects = projects_of(request.user)
    context = person_context(request.user, projects) | {
        "tokens": tokens_made(request.user, projects),
        "webhooks": webhooks_made(request.user, projects),
    }
    return render(request, TEMPLATE, context)


@require_http_methods(["GET", "HEAD"])
@never_cache
def me_export(request: HtmxHttpRequest) -> HttpResponseBase:
    """Export the own data."""
    return StreamingHttpResponse(
        person_json(request.user),
        content_type="application/json",
        headers={"Content-Disposition": 'attachment; filename="prospect-me.json"'},
    )


@require_POST
@reauthentication_required  # type: ignore[untyped-decorator]
def me_erase(request: HtmxHttpRequest) -> HttpResponseBase:
    """Erase oneself, with the account."""
    person = User.objects.get(pk=request.user.pk)
    try:
        validated(EraseForm(request.POST, user=person))
        erased = person_erase(user=person, by=person)
    except UserError as error:
        return error_response(request, str(error), back=reverse("me"))
    logout(request)
    messages.success(request, "Your account and your data have been erased.")
    used = [erasure for erasure in erased if erasure.due_at is not None]
    return redirect(erasure_link(used) if used else "account_login")


@project_view(Role.VIEWER, archived=True)
@action_view
def me_leave(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    """End the own membership."""
    validated(NoFields(request.POST))
    try:
        revoked = member_remove(membership=request.membership, actor=request.membership)
    except UserError as error:
        return error_response(request, str(error), back=reverse("me"))
    messages.success(request, f"You have left {project.name}.{revoked_text(revoked)}")
    return redirect("me")


# -- a member, for admins


@project_view(Role.ADMIN)
@page
def person(request: HtmxHttpRequest, project: Project, pk: int) -> HttpResponseBase:
    """Show a member's activity in this project, with the actions of an admin."""
    membership = member_of(project, pk)
    user = membership.user
    context = person_context(user, [project]) | {
        "project": project,
        "member": membership,
        "may_close": may_close(user=user, by=request.user),
        "may_erase": user != request.user and membership.role in roles_of(request.membership),
        "tokens": tokens_made(user, [project]),
        "webhooks": webhooks_made(user, [project]),
    }
    return render(request, TEMPLATE, context)


def roles_of(membership: Membership) -> list[Role]:
    return roles_given_by(Role(membership.role))


@project_view(Role.OWNER)
@action_view
def person_deactivate(request: HtmxHttpRequest, project: Project, pk: int) -> HttpResponseBase:
    """Deactivate the member's account."""
    user = member_of(project, pk).user
    validated(NoFields(request.POST))
    try:
        account_deactivate(user=user, by=request.user)
    except UserError as error:
        return error_response(request, str(error), back=reverse("person", args=[project.slug, pk]))
    messages.success(request, f"{user} is signed out everywhere and can no longer sign in.")
    return redirect("person", project.slug, pk)


@project_view(Role.OWNER)
@action_view
def person_reactivate(request: HtmxHttpRequest, project: Project, pk: int) -> HttpResponseBase:
    """Reactivate the member's account."""
    user = member_of(project, pk).user
    validated(NoFields(request.POST))
    account_reactivate(user=user, by=request.user)
    messages.success(request, f"{user} can sign in again.")
    return redirect("person", project.slug, pk)


@project_view(Role.ADMIN, archived=True)
@action_view
def person_erase_view(request: HtmxHttpRequest, project: Project, pk: int) -> HttpResponseBase:
    """Erase a member from this project; their account stays."""
    membership = member_of(project, pk)
    try:
        if membership.user_id == request.user.pk:
            raise UserError("Erase yourself on your own page.")
        may_give(request.membership, membership.role)
        validated(EraseForm(request.POST, user=membership.user))
        [erasure] = person_erase(user=membership.user, by=request.user, project=project)
    except UserError as error:
        return error_response(request, str(error), back=reverse("person", args=[project.slug, pk]))
    erasure_message(request, erasure)
    return redirect("people", project.slug)


@project_view(Role.ADMIN, archived=True)
@action_view
def api_person_erase(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    """Erase a user of the product, who has no account here."""
    name = validated(ApiPersonForm(request.POST))["name"]
    known = get_object_or_404(project.api_people.select_related("user"), name=name)
    for erasure in person_erase(user=known.user, by=request.user):
        erasure_message(request, erasure)
    return redirect("people", project.slug)


def erasure_message(request: HtmxHttpRequest, erasure: Erasure) -> None:
    """Show what was erased, and which versions had used it."""
    votes = f"{erasure.votes} vote{'' if erasure.votes == 1 else 's'}"
    text = f"Erased, with {votes}. Examples that are gone: {erasure.examples_gone}."
    if used := used_text(erasure):
        text += f" {used} Erasures has the link for the person."
    messages.success(request, text)
