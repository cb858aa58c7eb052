"""API tokens of a project, created and revoked by its owners and admins."""

from typing import Any

from django.contrib import messages
from django.http import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.cache import never_cache

from feedback_app.accounts.models import Role, Scope
from feedback_app.feedback.access import project_view
from feedback_app.feedback.models import Project
from feedback_app.feedback.tokens.forms import TokenForm
from feedback_app.feedback.tokens.services import token_create, token_revoke
from feedback_app.web.forms import NoFields, query_page, query_strict, validated
from feedback_app.web.htmx import HtmxHttpRequest
from feedback_app.web.pagination import ListedPaginator
from feedback_app.web.responses import action_view, page

PAGE_SIZE = 25


@project_view(Role.ADMIN)
def tokens(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    """Show the tokens, newest first, and a form for another."""
    return token_new(request, project) if request.method == "POST" else token_list(request, project)


@page
def token_list(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    query_strict(request, ("page",))
    return render(request, "feedback/tokens.html", tokens_context(request, project, TokenForm()))


@never_cache
@action_view
def token_new(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    """Create a token. The secret is in this response only, so there is no redirect."""
    form = TokenForm(request.POST)
    if not form.is_valid():
        return render(
            request, "feedback/tokens.html", tokens_context(request, project, form), status=400
        )
    token, secret = token_create(
        project=project,
        name=form.cleaned_data["name"],
        scopes=[Scope(scope) for scope in form.cleaned_data["scopes"]],
        by=request.user,
        expires_at=form.expires_at,
    )
    context = {**tokens_context(request, project, TokenForm()), "token": token, "secret": secret}
    return render(request, "feedback/tokens.html", context)


def tokens_context(request: HtmxHttpRequest, project: Project, form: TokenForm) -> dict[str, Any]:
    listed = project.tokens.select_related("created_by").order_by("-pk")
    shown = ListedPaginator(listed, PAGE_SIZE, of=project.tokens.all()).get_page(
        query_page(request)
    )
    base = request.build_absolute_uri("/v1")
    return {"project": project, "form": form, "page": shown, "base": base}


@project_view(Role.ADMIN, archived=True)
@action_view
def token_revoke_view(request: HtmxHttpRequest, project: Project, pk: int) -> HttpResponseBase:
    """Revoke a token."""
    token = get_object_or_404(project.tokens, pk=pk)
    token.project = project
    validated(NoFields(request.POST))
    if token_revoke(token=token, by=request.user):
        messages.success(request, f"{token.name} is revoked and can no longer be used.")
    return redirect("tokens", project.slug)
