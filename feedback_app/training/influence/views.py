"""Which votes shaped a version: the page, its report, and runs without a group of votes."""

from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django_htmx.http import HttpResponseStopPolling

from feedback_app.accounts.models import Role
from feedback_app.feedback.access import project_view
from feedback_app.feedback.models import Project
from feedback_app.training.influence.forms import WithoutForm
from feedback_app.training.influence.groups import KINDS
from feedback_app.training.influence.selectors import (
    influence_rows,
    result_of,
    with_measurements,
)
from feedback_app.training.influence.services import (
    TOP,
    influence_cancel,
    influence_objection,
    influence_request,
    run_without,
)
from feedback_app.training.models import Adapter, InfluenceReport
from feedback_app.web.errors import UserError
from feedback_app.web.forms import NoFields, query_choice, query_page, query_strict, validated
from feedback_app.web.htmx import HtmxHttpRequest
from feedback_app.web.responses import action_view, error_response, page

PAGE_SIZE = 25


def adapter_of(project: Project, name: str) -> Adapter:
    """Return the project's version of this name, or raise 404."""
    rows = Adapter.objects.select_related("run__snapshot").defer("report")
    adapter: Adapter = get_object_or_404(rows, project=project, name=name)
    adapter.project = adapter.run.project = project
    return adapter


def report_of(adapter: Adapter) -> InfluenceReport | None:
    report = InfluenceReport.objects.filter(adapter=adapter).first()
    if report is not None:
        report.adapter = adapter
    return report


def report_or_404(project: Project, name: str) -> InfluenceReport:
    adapter = adapter_of(project, name)
    report: InfluenceReport = get_object_or_404(InfluenceReport, adapter=adapter)
    report.adapter = adapter
    return report


@project_view(Role.ADMIN)
@page
def influence(request: HtmxHttpRequest, project: Project, name: str) -> HttpResponseBase:
    """Show the groups of one kind, those without which the version would be best first."""
    query_strict(request, ("by", "page"))
    kind = query_choice(request, "by", tuple(KINDS))
    number = query_page(request)
    adapter = adapter_of(project, name)
    report = report_of(adapter)
    result = result_of(report)
    address = reverse("influence", args=[project.slug, name])
    context: dict[str, Any] = {
        "project": project,
        "adapter": adapter,
        "report": report,
        "result": result,
        "objection": influence_objection(adapter),
        "kind": kind,
        "tabs": [
            (key.capitalize(), f"{address}?{urlencode({'by': key})}", key == kind) for key in KINDS
        ],
        "query": urlencode({"by": kind}),
        "top": TOP,
    }
    if report is not None and result is not None:
        shown = Paginator(influence_rows(report, kind), PAGE_SIZE).get_page(number)
        context |= {"page": shown, "rows": with_measurements(list(shown), report)}
    return render(request, "training/influence.html", context)


@project_view(Role.ADMIN)
@page
def influence_progress(request: HtmxHttpRequest, project: Project, name: str) -> HttpResponseBase:
    """Show the progress; once the report has ended, stop polling and reload the page."""
    report = report_or_404(project, name)
    context = {"project": project, "adapter": report.adapter, "report": report}
    response = render(request, "training/influence.html#progress", context)
    if not report.active:
        response.status_code = HttpResponseStopPolling.status_code
        response["HX-Refresh"] = "true"
    return response


@project_view(Role.ADMIN)
@action_view
def influence_new(request: HtmxHttpRequest, project: Project, name: str) -> HttpResponseBase:
    """Request the report, or a new one."""
    validated(NoFields(request.POST))
    back = reverse("influence", args=[project.slug, name])
    try:
        influence_request(adapter=adapter_of(project, name), by=request.user)
    except UserError as error:
        return error_response(request, str(error), back=back)
    return redirect(back)


@project_view(Role.ADMIN, archived=True)
@action_view
def influence_stop(request: HtmxHttpRequest, project: Project, name: str) -> HttpResponseBase:
    """Cancel the report."""
    validated(NoFields(request.POST))
    back = reverse("influence", args=[project.slug, name])
    try:
        influence_cancel(report=report_or_404(project, name), by=request.user)
    except UserError as error:
        return error_response(request, str(error), back=back)
    messages.info(request, "Cancelling.")
    return redirect(back)


@project_view(Role.ADMIN)
@action_view
def influence_train(request: HtmxHttpRequest, project: Project, name: str) -> HttpResponseBase:
    """Queue a run without a group of votes."""
    values = validated(WithoutForm(request.POST))
    back = reverse("influence", args=[project.slug, name]) + f"?by={values['kind']}"
    report = report_or_404(project, name)
    try:
        run = run_without(report=report, by=request.user, **values)
    except UserError as error:
        return error_response(request, str(error), back=back)
    messages.success(request, f"{run} is queued: its validation loss will be shown here.")
    return redirect(back)
