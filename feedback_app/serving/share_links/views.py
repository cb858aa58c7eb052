"""A project's share links: created and revoked by its owners and admins."""

from typing import Any

from django.contrib import messages
from django.http import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.cache import never_cache

from feedback_app.accounts.models import Role
from feedback_app.db.bounded_count import counted_of
from feedback_app.feedback.access import project_view
from feedback_app.feedback.models import Project
from feedback_app.serving.demo.conversations import versions_offered
from feedback_app.serving.models import Conversation, ShareLink, ShareVisitor
from feedback_app.serving.share_links.forms import ShareLinkForm
from feedback_app.serving.share_links.services import link_create, link_revoke
from feedback_app.web.forms import NoFields, query_page, query_strict, validated
from feedback_app.web.htmx import HtmxHttpRequest
from feedback_app.web.pagination import ListedPaginator
from feedback_app.web.responses import action_view, page

PAGE_SIZE = 25


@project_view(Role.ADMIN)
def share_links(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    """Show the links, newest first, with a form for a new one."""
    return link_new(request, project) if request.method == "POST" else link_list(request, project)


@page
def link_list(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    query_strict(request, ("page",))
    context = links_context(request, project, ShareLinkForm())
    return render(request, "serving/share_links.html", context)


@never_cache
@action_view
def link_new(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    """Create a link. Its URL is shown only in this response, so there is no redirect."""
    form = ShareLinkForm(request.POST)
    if not form.is_valid():
        context = links_context(request, project, form)
        return render(request, "serving/share_links.html", context, status=400)
    link, secret = link_create(project=project, by=request.user, **form.cleaned_data)
    address = request.build_absolute_uri(reverse("shared", args=[secret]))
    context = links_context(request, project, ShareLinkForm())
    context |= {"link": link, "address": address}
    return render(request, "serving/share_links.html", context)


def links_context(
    request: HtmxHttpRequest, project: Project, form: ShareLinkForm
) -> dict[str, Any]:
    visitors = counted_of(ShareLink, ShareVisitor, on=("link_id", "id"))
    rows = project.share_links.order_by("-created_at", "-pk")
    listed = rows.select_related("created_by").annotate(people=visitors)
    return {
        "project": project,
        "form": form,
        "page": ListedPaginator(listed, PAGE_SIZE, of=rows).get_page(query_page(request)),
        "versions": [Conversation.LIVE, *versions_offered(project)],
        "now": timezone.now(),
    }


@project_view(Role.ADMIN, archived=True)
@action_view
def share_link_revoke(request: HtmxHttpRequest, project: Project, pk: int) -> HttpResponseBase:
    """Revoke a link."""
    link = get_object_or_404(project.share_links, pk=pk)
    link.project = project
    validated(NoFields(request.POST))
    if link_revoke(link=link, by=request.user):
        messages.success(request, f"{link.label} is revoked.")
    return redirect("share-links", project.slug)
