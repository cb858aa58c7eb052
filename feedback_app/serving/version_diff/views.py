"""The version diff: the numbers of the gate, and answers side by side."""

from django.http import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django_htmx.http import HttpResponseStopPolling

from feedback_app.accounts.models import Role, roles_from
from feedback_app.feedback.access import project_view
from feedback_app.feedback.models import Project
from feedback_app.serving.models import ChangeReport
from feedback_app.serving.releases.figures import UpRate, up_rates
from feedback_app.serving.version_diff.page import rows_of, summaries
from feedback_app.serving.version_diff.services import conditions_of, version_diff_request
from feedback_app.training.gate.report import gate_rows, versions_of
from feedback_app.training.models import Adapter
from feedback_app.web.errors import UserError
from feedback_app.web.forms import NoFields, query_choice, query_strict, validated
from feedback_app.web.htmx import HtmxHttpRequest
from feedback_app.web.responses import action_view, error_response, page


def adapter_of(project: Project, name: str) -> Adapter:
    """Return the project's version of this name, or raise 404."""
    adapters = Adapter.objects.select_related("run__snapshot")
    adapter: Adapter = get_object_or_404(adapters, project=project, name=name)
    adapter.project = project
    return adapter


def report_of(adapter: Adapter) -> ChangeReport | None:
    report = ChangeReport.objects.filter(adapter=adapter).first()
    if report is not None:
        report.adapter = adapter
    return report


def rates_of(
    request: HtmxHttpRequest, project: Project, versions: list[str]
) -> list[tuple[str, UpRate]]:
    """Return the up-rates of versions that have votes; an empty list for people below admin."""
    if request.membership.role not in roles_from(Role.ADMIN):
        return []
    known = up_rates(project).by_version
    return [(version, known[version]) for version in versions if version in known]


@project_view(Role.VIEWER)
@page
def version_diff(request: HtmxHttpRequest, project: Project, name: str) -> HttpResponseBase:
    """Show the page; `show=changed` leaves out unchanged answers."""
    query_strict(request, ("show",))
    show = query_choice(request, "show", ("", "changed"))
    adapter = adapter_of(project, name)
    report = report_of(adapter)
    rows = rows_of(report) if report else []
    rates = rates_of(request, project, report.versions if report else [adapter.name])
    context = {
        "project": project,
        "adapter": adapter,
        "report": report,
        "rows": [row for row in rows if row.changed or not show],
        "show": show,
        "rates": rates,
        "representative": any(rate.representative for _, rate in rates),
        "compared": sum(row.changed is not None for row in rows),
        "changed": sum(bool(row.changed) for row in rows),
        "summaries": summaries(report, rows) if report else [],
        "outdated": report is not None and report.conditions != conditions_of(project),
        "gate": gate_rows(adapter),
        "versions": versions_of(adapter),
    }
    return render(request, "serving/changes.html", context)


@project_view(Role.VIEWER)
@page
def version_diff_progress(
    request: HtmxHttpRequest, project: Project, name: str
) -> HttpResponseBase:
    """Show the progress; once the report has ended, stop polling and reload the page."""
    report = report_of(adapter_of(project, name))
    context = {"project": project, "adapter": adapter_of(project, name), "report": report}
    response = render(request, "serving/changes.html#progress", context)
    if report is None or not report.active:
        response.status_code = HttpResponseStopPolling.status_code
        response["HX-Refresh"] = "true"
    return response


@project_view(Role.ADMIN)
@action_view
def version_diff_new(request: HtmxHttpRequest, project: Project, name: str) -> HttpResponseBase:
    """Request the missing answers."""
    validated(NoFields(request.POST))
    back = reverse("changes", args=[project.slug, name])
    try:
        version_diff_request(adapter=adapter_of(project, name), by=request.user)
    except UserError as error:
        return error_response(request, str(error), back=back)
    return redirect(back)
