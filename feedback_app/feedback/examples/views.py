"""The list of examples."""

from django.http import HttpResponseBase
from django.shortcuts import render

from feedback_app.accounts.models import Role
from feedback_app.db.bounded_count import counted
from feedback_app.feedback.access import project_view
from feedback_app.feedback.examples.listing import (
    WINDOW,
    ExampleFilter,
    answers_of,
    examples_counted,
    versions_answered,
)
from feedback_app.feedback.models import Project
from feedback_app.feedback.prompts.selectors import sampling_stuck
from feedback_app.web.forms import query_page
from feedback_app.web.htmx import HtmxHttpRequest
from feedback_app.web.pagination import CountedPaginator
from feedback_app.web.responses import page

PAGE_SIZE = 25


def explored_run(project: Project) -> int | None:
    """Return the number of the newest run whose examples can be seen by their rewards."""
    finished = project.runs.filter(status="succeeded").order_by("-number")
    number: int | None = finished.values_list("number", flat=True).first()
    return number


@project_view(Role.ADMIN)
@page
def examples(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    """Show examples with their completions and votes."""
    versions = versions_answered(project)
    chosen = ExampleFilter.of(request, versions=versions)
    rows = CountedPaginator(chosen.select(project), PAGE_SIZE).get_page(query_page(request))
    counts = examples_counted(project)
    context = {
        "project": project,
        "chosen": chosen,
        "versions": versions,
        "page": rows,
        "answers": answers_of(rows),
        "query": chosen.query(),
        "counts": counts,
        "has_examples": any(counts.values()),
        "window": WINDOW,
        "window_full": sum(counts.values()) > WINDOW,
        "flagged": counted(project.completions.filter(flagged=True)),
        # the relation of a higher layer, by name only
        "explored_run": None if request.htmx else explored_run(project),
        "stuck_sampling": None if request.htmx else sampling_stuck(project),
    }
    template = "feedback/examples.html"
    return render(request, f"{template}#list" if request.htmx else template, context)
