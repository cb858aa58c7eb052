"""Downloading, discarding and restoring an adapter."""

from django.contrib import messages
from django.http import HttpResponseBase, StreamingHttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.urls import reverse

from feedback_app.accounts.audit import audit
from feedback_app.accounts.models import Role
from feedback_app.feedback.access import project_view
from feedback_app.feedback.models import Project
from feedback_app.training.models import Adapter
from feedback_app.training.registry.download import adapter_files, adapter_zip
from feedback_app.training.registry.services import adapter_discard, adapter_restore
from feedback_app.web.errors import UserError
from feedback_app.web.forms import NoFields, query_strict, validated
from feedback_app.web.htmx import HtmxHttpRequest
from feedback_app.web.responses import action_view, error_response, page


def adapter_of(project: Project, name: str) -> Adapter:
    """Return the project's adapter of this name, or raise 404."""
    return get_object_or_404(Adapter.objects.select_related("project"), project=project, name=name)


@project_view(Role.ADMIN)
@action_view
def adapter_discard_view(request: HtmxHttpRequest, project: Project, name: str) -> HttpResponseBase:
    """Discard a version; its files are kept."""
    validated(NoFields(request.POST))
    adapter = adapter_of(project, name)
    try:
        adapter_discard(adapter=adapter, by=request.user)
    except UserError as error:
        return error_response(request, str(error), back=run_url(project, adapter))
    messages.info(request, f"{name} was discarded. Its page can restore it.")
    return redirect(run_url(project, adapter))


@project_view(Role.ADMIN)
@action_view
def adapter_restore_view(request: HtmxHttpRequest, project: Project, name: str) -> HttpResponseBase:
    """Restore a discarded version."""
    validated(NoFields(request.POST))
    adapter = adapter_of(project, name)
    try:
        adapter_restore(adapter=adapter, by=request.user)
    except UserError as error:
        return error_response(request, str(error), back=run_url(project, adapter))
    messages.success(request, f"{name} was restored.")
    return redirect(run_url(project, adapter))


@project_view(Role.ADMIN)
@page
def adapter_download(request: HtmxHttpRequest, project: Project, name: str) -> HttpResponseBase:
    """Return a version's files as a ZIP archive: an adapter that PEFT and vLLM load."""
    query_strict(request, ())
    adapter = adapter_of(project, name)
    names = adapter_files(adapter)
    if request.method == "GET":
        audit(project=project, actor=request.user, action="adapter.download", target=name)
    return StreamingHttpResponse(
        adapter_zip(adapter, names),
        content_type="application/zip",
        headers={"Content-Disposition": f'attachment; filename="{name.replace("@", "-")}.zip"'},
    )


def run_url(project: Project, adapter: Adapter) -> str:
    """Return the URL of the run that produced the adapter."""
    number = project.runs.values_list("number", flat=True).get(pk=adapter.run_id)
    return reverse("run", args=[project.slug, number])
