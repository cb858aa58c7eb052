"""The first page of a project, and the data of its plots."""

from collections.abc import Iterable
from typing import Any

from django.http import Http404, HttpResponse, HttpResponseBase
from django.shortcuts import render

from feedback_app.accounts.models import Role
from feedback_app.feedback.access import project_view
from feedback_app.feedback.exports.rows import csv_line
from feedback_app.feedback.models import Project
from feedback_app.serving.models import Release
from feedback_app.serving.project_home.history import DAYS, History, history
from feedback_app.serving.project_home.selectors import (
    first_steps,
    tasks_of_admins,
    tasks_of_annotators,
)
from feedback_app.serving.releases.figures import up_rates
from feedback_app.serving.traffic_splits.report import running_split
from feedback_app.training.schedules.own_settings import scheduled_objections
from feedback_app.training.schedules.selectors import next_run
from feedback_app.web.forms import query_strict
from feedback_app.web.htmx import HtmxHttpRequest
from feedback_app.web.responses import page

#: The columns of each table of the history.
TABLES = {
    "votes": ("day", "ups", "downs"),
    "agreement": ("day", "agreeing_pairs", "pairs"),
    "rates": ("day", "version", "ups", "votes"),
}


@project_view(Role.ADMIN)
@page
def project_home(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    """Show how the loop stands, what comes next, and what waits for whom."""
    query_strict(request, ())
    coming = next_run(project)
    # only a run that is due may be refused; the plan reads much
    objections = scheduled_objections(coming.schedule, project) if coming.due else ()
    rates = up_rates(project)
    found = history(project)
    context = {
        "project": project,
        "steps": first_steps(project),
        "admin_tasks": tasks_of_admins(project),
        "annotator_tasks": tasks_of_annotators(project),
        "live": Release.objects.filter(project=project, live=True).first(),
        "rate": rates.by_version.get(project.live_version),
        "rates_known": rates.known,
        "split": running_split(project),
        "next_run": coming,
        "objections": objections,
        "history": found,
        "plots": plots_data(found),
        "days": DAYS,
    }
    return render(request, "serving/project_home.html", context)


def plots_data(found: History) -> dict[str, Any]:
    """Return the history as the script of the page reads it; moments are seconds."""
    return {
        "votes": found.votes,
        "agreement": found.agreement,
        "rates": found.rates,
        "releases": [[moment.timestamp(), version] for moment, version in found.releases],
    }


@project_view(Role.ADMIN)
@page
def history_csv(request: HtmxHttpRequest, project: Project, table: str) -> HttpResponseBase:
    """Return the data of a plot."""
    query_strict(request, ())
    if table not in TABLES:
        raise Http404("No such table.")
    lines = [csv_line(TABLES[table]), *(csv_line(map(str, row)) for row in rows_of(project, table))]
    response = HttpResponse(b"".join(lines), content_type="text/csv; charset=utf-8")
    response["Content-Disposition"] = f'attachment; filename="{project.slug}-{table}.csv"'
    return response


def rows_of(project: Project, table: str) -> Iterable[Iterable[Any]]:
    found = history(project)
    if table == "votes":
        return found.votes
    if table == "agreement":
        return found.agreement
    return [
        (day, version, ups, votes)
        for version, days in found.rates.items()
        for day, ups, votes in days
    ]
