"""The explorer: a run's training examples on the value curve and as a list."""

from typing import Any

from django.contrib import messages
from django.http import HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import reverse

from feedback_app.accounts.models import Role
from feedback_app.feedback.access import project_view
from feedback_app.feedback.adjudication.services import adjudication_request
from feedback_app.feedback.examples.weights import examples_weigh
from feedback_app.feedback.models import Completion, Project
from feedback_app.feedback.prompts.selectors import topics
from feedback_app.training.explorer.forms import SEND_BACK, ActionForm
from feedback_app.training.explorer.listing import (
    WINDOW,
    ExplorerFilter,
    has_fit,
    people_of,
    placed,
    rewards_under_live,
)
from feedback_app.training.models import Run
from feedback_app.training.runs.fit import fit_of_run
from feedback_app.training.runs.value_curve import point_of, value_curve
from feedback_app.training.runs.views import run_of
from feedback_app.web.errors import UserError
from feedback_app.web.forms import query_page
from feedback_app.web.htmx import HtmxHttpRequest
from feedback_app.web.pagination import CountedPaginator
from feedback_app.web.responses import action_view, error_response, page

PAGE_SIZE = 25


@project_view(Role.ADMIN)
def run_examples(request: HtmxHttpRequest, project: Project, number: int) -> HttpResponseBase:
    """Show the examples, or act on those that were selected."""
    shown = run_examples_act if request.method == "POST" else run_examples_show
    return shown(request, project, number)


def filter_of(request: HtmxHttpRequest, project: Project) -> tuple[ExplorerFilter, dict[str, Any]]:
    """Return the list's state and the choices of its filters."""
    known, people = topics(project), people_of(project)
    chosen = ExplorerFilter.of(request, topics=known, people=[pk for pk, _ in people])
    return chosen, {"topics": known, "people": [(str(pk), name) for pk, name in people]}


@page
def run_examples_show(request: HtmxHttpRequest, project: Project, number: int) -> HttpResponseBase:
    run = run_of(project, number)
    chosen, choices = filter_of(request, project)
    rows = CountedPaginator(chosen.select(run), PAGE_SIZE).get_page(query_page(request))
    live = rewards_under_live(run, rows)
    beta = float(run.config.get("beta", 0.1))
    for item in rows:
        item.live_reward = live.get(item.completion_id)
        item.point = point_of(*placed(item), beta=beta)
    context = {
        "project": project,
        "run": run,
        "chosen": chosen,
        "page": rows,
        "query": chosen.query(),
        "window": WINDOW,
        "curve": value_curve(run, fit_of_run(run)),
        "has_fit": has_fit(run),
        "live_shown": bool(live),
        **choices,
    }
    return render(request, "training/explorer.html", context)


@action_view
def run_examples_act(request: HtmxHttpRequest, project: Project, number: int) -> HttpResponseBase:
    """Send the selected examples back, exclude them or set their weight."""
    run = run_of(project, number)
    chosen, _ = filter_of(request, project)
    # the same part of the list
    page_number = query_page(request)
    query = "&".join(
        filter(None, [chosen.query(), f"page={page_number}" if page_number > 1 else ""])
    )
    back = reverse("run-examples", args=[project.slug, number]) + (f"?{query}" if query else "")
    form = ActionForm(request.POST, run=run)
    if not form.is_valid():
        none = "Select at least one example." if "item" not in request.POST else ""
        return error_response(request, none or form.errors_text(), back=back)
    completions = form.cleaned_data["item"]
    try:
        if form.cleaned_data["action"] == SEND_BACK:
            send_back(run, completions, by=request)
            text = "sent back: see Disagreements."
        else:
            examples_weigh(
                project=project, completions=completions, weight=form.weight, by=request.user
            )
            text = "changed. Snapshots from now on follow; those that were taken stay."
    except UserError as error:
        return error_response(request, str(error), back=back)
    count = len(completions)
    messages.success(request, f"{count} example{'s' if count > 1 else ''} {text}")
    return redirect(back)


def send_back(run: Run, completions: list[int], *, by: HtmxHttpRequest) -> None:
    """Ask for an adjudication of each. Raise UserError for one in the gold set."""
    why = f"It fits badly in run {run.number}: the trained model sees it the other way."
    for completion in Completion.objects.filter(pk__in=completions).order_by("pk"):
        adjudication_request(completion=completion, why=why, by=by.user)
