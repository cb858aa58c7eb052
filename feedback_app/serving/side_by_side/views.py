"""The page of several runs side by side, with the answers of their versions."""

from django.http import HttpResponseBase
from django.shortcuts import render

from feedback_app.accounts.models import Role
from feedback_app.feedback.access import project_view
from feedback_app.feedback.models import Project
from feedback_app.serving.version_diff.page import rows_side_by_side
from feedback_app.training.side_by_side.selectors import MOST, runs_side_by_side
from feedback_app.web.errors import UserError
from feedback_app.web.forms import query_strict
from feedback_app.web.htmx import HtmxHttpRequest
from feedback_app.web.responses import page


@project_view(Role.ADMIN)
@page
def side_by_side(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    """Show the runs that the parameters `run` name, two to MOST of them."""
    query_strict(request, ("run",))
    given = request.GET.getlist("run")
    if any(not one.isdecimal() or len(one) > 9 for one in given):
        raise UserError("run must be the number of a run.")
    numbers = sorted({int(one) for one in given})
    if not 2 <= len(numbers) <= MOST:
        raise UserError(f"Choose two to {MOST} runs in the list of runs.")
    found = runs_side_by_side(project, numbers)
    if len(found.runs) < len(numbers):
        raise UserError("This project does not have all of these runs.")
    adapters = [run.adapter for run in found.runs if hasattr(run, "adapter")]
    rows = rows_side_by_side(project, [adapter.name for adapter in adapters])
    answered = {column.version for row in rows for column in row.columns if column.answer}
    context = {
        "project": project,
        "found": found,
        "rows": rows if answered else [],
        "unanswered": [adapter for adapter in adapters if adapter.name not in answered],
    }
    return render(request, "serving/side_by_side.html", context)
