"""The page that imports a version."""

from django.contrib import messages
from django.http import HttpResponseBase
from django.shortcuts import redirect, render
from django.views.decorators.csrf import csrf_exempt, csrf_protect

from feedback_app.accounts.models import Role
from feedback_app.feedback.access import project_view
from feedback_app.feedback.models import Project
from feedback_app.training.adapter_import.forms import AdapterForm
from feedback_app.training.adapter_import.services import import_archive, upload_limit
from feedback_app.web.bodies import content_length
from feedback_app.web.errors import UserError
from feedback_app.web.forms import query_strict, validated
from feedback_app.web.htmx import HtmxHttpRequest
from feedback_app.web.responses import action_view, error_response, page

#: The most bytes that the form adds around its file.
FORM_BYTES = 100_000


@csrf_exempt  # `upload` checks it: the check reads the body, so role and size come first
@project_view(Role.ADMIN)
def adapter_import(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    """Show the form, or take the archive."""
    if request.method != "POST":
        return form(request, project)
    if content_length(request) - FORM_BYTES > upload_limit():
        why = (
            f"The file is larger than {upload_limit() / 1e6:,.0f} MB. Nothing was imported: use "
            "manage.py import_adapter, or raise ADAPTER_UPLOAD_MB."
        )
        return error_response(request, why, status=413)
    return upload(request, project)


@page
def form(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    query_strict(request, ())
    return shown(request, project)


@csrf_protect
@action_view
def upload(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    """Store the archive's adapter and queue its run, or show why it is refused."""
    try:
        file = validated(AdapterForm(request.POST, request.FILES))["file"]
        run = import_archive(project=project, by=request.user, upload=file.file)
    except UserError as error:
        return shown(request, project, fault=str(error), status=400)
    messages.success(request, "Imported. A worker verifies it and the gate judges it.")
    return redirect("run", project.slug, run.number)


def shown(
    request: HtmxHttpRequest, project: Project, *, fault: str = "", status: int = 200
) -> HttpResponseBase:
    context = {"project": project, "fault": fault, "limit": upload_limit() // 1_000_000}
    return render(request, "training/adapter_import.html", context, status=status)
