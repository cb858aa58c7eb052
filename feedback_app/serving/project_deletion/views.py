"""The page that deletes a project, and those of deletions."""

from typing import Any

from django.contrib import messages
from django.http import Http404, HttpResponseBase
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods, require_safe
from django_htmx.http import HttpResponseStopPolling

from feedback_app.accounts.models import Role
from feedback_app.feedback.access import project_view
from feedback_app.feedback.audit_trail.labels import label_of
from feedback_app.feedback.audit_trail.listing import person_of
from feedback_app.feedback.models import Project, ProjectDeletion
from feedback_app.serving.project_deletion.forms import DeleteForm
from feedback_app.serving.project_deletion.selectors import (
    deletion_for,
    deletion_objections,
    deletion_share,
    rows_counted,
    rows_deleted,
    trail_of,
)
from feedback_app.serving.project_deletion.services import project_delete
from feedback_app.web.errors import UserError
from feedback_app.web.forms import query_page, query_strict
from feedback_app.web.htmx import HtmxHttpRequest
from feedback_app.web.pagination import CountedPaginator
from feedback_app.web.responses import bad_request

PAGE_SIZE = 50
#: Versions whose downloads the page offers; the others are on their runs' pages.
VERSIONS_OFFERED = 20


@require_http_methods(["GET", "HEAD", "POST"])
@project_view(Role.OWNER, archived=True)
def project_delete_view(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    """Show what would be deleted, or request the deletion."""
    if request.method != "POST":
        return delete_page(request, project, DeleteForm(project=project))
    form = DeleteForm(request.POST, project=project)
    if not form.is_valid():
        return delete_page(request, project, form, status=400)
    try:
        deletion = project_delete(project=project, by=request.user)
    except UserError:
        return delete_page(request, project, form, status=409)  # it says why
    messages.success(request, f"{project.name} is being deleted.")
    return redirect("project-deletion", deletion.pk)


def delete_page(
    request: HtmxHttpRequest, project: Project, form: DeleteForm, *, status: int = 200
) -> HttpResponseBase:
    usable = project.adapters.usable().newest_first()
    versions = list(usable.values_list("name", flat=True)[: VERSIONS_OFFERED + 1])
    context: dict[str, Any] = {
        "project": project,
        "form": form,
        "objections": deletion_objections(project),
        "lines": rows_counted(project),
        "versions": versions[:VERSIONS_OFFERED],
        "more_versions": len(versions) > VERSIONS_OFFERED,
    }
    return render(request, "serving/project_delete.html", context, status=status)


@require_safe
def project_deletions(request: HtmxHttpRequest) -> HttpResponseBase:
    """List the deletions that this person requested; superusers see all."""
    try:
        query_strict(request, ("page",))
        number = query_page(request)
    except UserError as error:
        return bad_request(request, str(error))
    rows = ProjectDeletion.objects.select_related("project", "by").order_by("-created_at", "-pk")
    if not request.user.is_superuser:
        rows = rows.filter(by=request.user)
    found = CountedPaginator(rows, PAGE_SIZE).get_page(number)
    context = {"page": found, "all": request.user.is_superuser}
    return render(request, "serving/project_deletions.html", context)


@require_safe
def project_deletion(request: HtmxHttpRequest, pk: int) -> HttpResponseBase:
    """Show how far a deletion is, and the audit trail that the project has left."""
    deletion = deletion_for(request.user, pk)
    if deletion is None:
        raise Http404("No such deletion.")
    try:
        query_strict(request, ("page",))
        number = query_page(request)
    except UserError as error:
        return bad_request(request, str(error))
    context: dict[str, Any] = {
        "deletion": deletion,
        "lines": rows_deleted(deletion),
        "percent": deletion_share(deletion),
    }
    if request.htmx:
        return deletion_status(request, deletion, context)
    found = CountedPaginator(trail_of(deletion), PAGE_SIZE).get_page(number)
    context["page"] = found
    context["rows"] = [(event, label_of(event.action), person_of(event)) for event in found]
    return render(request, "serving/project_deletion.html", context)


def deletion_status(
    request: HtmxHttpRequest, deletion: ProjectDeletion, context: dict[str, Any]
) -> HttpResponseBase:
    """Show the progress; once it is done, stop polling and reload the page."""
    response = render(request, "serving/project_deletion.html#deletion-status", context)
    if deletion.finished_at:
        response.status_code = HttpResponseStopPolling.status_code
        response["HX-Refresh"] = "true"
    return response
