"""The pages of sweeps."""

from typing import Any

from django.contrib import messages
from django.db.models import Count, Q
from django.http import Http404, HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse

from feedback_app.accounts.models import Role
from feedback_app.feedback.access import project_view
from feedback_app.feedback.models import Project
from feedback_app.training.models import Run, Sweep
from feedback_app.training.runs.presets import BY_KEY, preset_config
from feedback_app.training.side_by_side.selectors import settings_shown
from feedback_app.training.snapshots.figures import snapshot_figures
from feedback_app.training.sweeps.coordinates import coordinates
from feedback_app.training.sweeps.forms import START, ChooseForm, SweepForm, sweep_initial
from feedback_app.training.sweeps.plan import SweepPlan, sweep_plan
from feedback_app.training.sweeps.probes import measure_of
from feedback_app.training.sweeps.selectors import (
    MEASURE,
    best_of,
    columns_of,
    progress_of,
    sweep_of,
    trial_chosen,
    trials_shown,
    trials_sorted,
)
from feedback_app.training.sweeps.services import sweep_cancel, sweep_request, trial_choose
from feedback_app.training.sweeps.space import values_shown
from feedback_app.web.errors import UserError
from feedback_app.web.forms import NoFields, query_choice, query_page, query_strict, validated
from feedback_app.web.htmx import HtmxHttpRequest
from feedback_app.web.pagination import CountedPaginator
from feedback_app.web.responses import action_view, error_response, page

PAGE_SIZE = 25


@project_view(Role.ADMIN)
@page
def sweeps(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    """List the sweeps of a project, newest first."""
    query_strict(request, ("page",))
    rows = project.sweeps.order_by("-number").select_related("requested_by", "snapshot")
    shown = CountedPaginator(rows, PAGE_SIZE).get_page(query_page(request))
    active = Q(status__in=Run.ACTIVE, evaluates=False)
    counted = Run.objects.filter(sweep__in=[sweep.pk for sweep in shown]).order_by()
    counts = {
        row["sweep"]: row
        for row in counted.values("sweep").annotate(
            trials_total=Count("pk"), trials_left=Count("pk", filter=active)
        )
    }
    for sweep in shown:
        sweep.counts = counts.get(sweep.pk)
        sweep.varied = varied_of(sweep)
    return render(request, "training/sweeps.html", {"project": project, "page": shown})


def varied_of(sweep: Sweep) -> list[tuple[str, str]]:
    """Return the settings that a sweep varies, with their values."""
    labels = columns_of(sweep)
    return [(labels[name], values_shown(values)) for name, values in sweep.space.items()]


@project_view(Role.ADMIN)
def sweep_new(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    """Show the form of a sweep, show its plan, or start it."""
    shown = sweep_new_post if request.method == "POST" else sweep_new_show
    return shown(request, project)


@page
def sweep_new_show(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    query_strict(request, ())
    config = preset_config(BY_KEY["default"], project.base_model)
    return sweep_form_page(request, project, SweepForm(initial=sweep_initial(config)))


@action_view
def sweep_new_post(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    form = SweepForm(request.POST)
    if not form.is_valid():
        return sweep_form_page(request, project, form, status=400)
    try:
        if form.cleaned_data["action"] == START:
            found = sweep_request(
                project=project, by=request.user, base=form.config(), search=form.search()
            )
            messages.success(request, f"{found} has begun: its trials wait for a worker.")
            return redirect("sweep", project.slug, found.number)
        plan = plan_of(project, form)
    except UserError as error:
        form.add_error(None, str(error))
        return sweep_form_page(request, project, form, status=400)
    return sweep_form_page(request, project, form, plan=plan, planned=True)


def plan_of(project: Project, form: SweepForm) -> SweepPlan | None:
    """Return the plan of the sweep in a valid form; None until a worker has counted the votes of a
    large project. Raises UserError."""
    search = form.search()
    configs = search.configs(form.config())
    totals = snapshot_figures(project).value
    if totals is None:
        return None
    return sweep_plan(
        project=project,
        base=form.config(),
        trials=configs,
        max_hours=search.max_hours,
        totals=totals,
    )


def sweep_form_page(
    request: HtmxHttpRequest,
    project: Project,
    form: SweepForm,
    *,
    plan: SweepPlan | None = None,
    planned: bool = False,
    status: int = 200,
) -> HttpResponseBase:
    context: dict[str, Any] = {"project": project, "form": form, "plan": plan, "planned": planned}
    if plan is not None:
        names = list(form.cleaned_data["space"])
        context["names"] = [form.fields[name].label for name in names]
        context["rows"] = [settings_shown(trial, names) for trial in plan.trials]
    return render(request, "training/sweep_new.html", context, status=status)


# -- one sweep


def found_sweep(project: Project, number: int) -> Sweep:
    """Return the project's sweep of this number, or raise 404."""
    found = sweep_of(project, number)
    if found is None:
        raise Http404
    return found


@project_view(Role.ADMIN)
@page
def sweep(request: HtmxHttpRequest, project: Project, number: int) -> HttpResponseBase:
    """Show a sweep: progress, the trials as a table and as lines, and which one is best."""
    query_strict(request, ("sort", "order"))
    found = found_sweep(project, number)
    columns = columns_of(found)
    by = query_choice(request, "sort", (MEASURE, *columns))
    first = "ascending" if measure_of(found) == "loss" else "descending"
    orders = ("descending", "ascending") if first == "descending" else ("ascending", "descending")
    order = query_choice(request, "order", orders)
    trials = trials_shown(found)
    best = best_of(trials)
    context = {
        "project": project,
        "sweep": found,
        "varied": varied_of(found),
        "measure": measure_of(found),
        "headers": headers(columns, by, order),
        "trials": trials_sorted(trials, by=by, descending=order == "descending"),
        "query": f"sort={by}&order={order}",
        "best": best,
        "chosen": trial_chosen(found),
        "progress": progress_of(trials),
        "drawing": coordinates(found, trials, best),
    }
    return render(request, "training/sweep.html", context)


def headers(columns: dict[str, str], by: str, order: str) -> list[tuple[str, str, str]]:
    """Return each column's label, the query that sorts by it, and its `aria-sort`."""
    turned = {"ascending": "descending", "descending": "ascending"}
    return [
        (
            label,
            f"sort={name}&order={turned[order] if name == by else 'ascending'}",
            order if name == by else "",
        )
        for name, label in columns.items()
    ]


@project_view(Role.ADMIN, archived=True)
@action_view
def sweep_cancel_view(request: HtmxHttpRequest, project: Project, number: int) -> HttpResponseBase:
    """Cancel the trials that wait or run; those that have ended stay."""
    validated(NoFields(request.POST))
    back = reverse("sweep", args=[project.slug, number])
    try:
        sweep_cancel(sweep=found_sweep(project, number), by=request.user)
    except UserError as error:
        return error_response(request, str(error), back=back)
    messages.info(request, "Cancelling: trials that run write a checkpoint first.")
    return redirect(back)


@project_view(Role.ADMIN)
@action_view
def sweep_choose_view(request: HtmxHttpRequest, project: Project, number: int) -> HttpResponseBase:
    """Have the gate judge one trial."""
    found = found_sweep(project, number)
    wanted = validated(ChooseForm(request.POST))["run"]
    run = get_object_or_404(found.trials.all(), number=wanted)
    try:
        trial_choose(sweep=found, run=run, by=request.user)
    except UserError as error:
        return error_response(
            request, str(error), back=reverse("sweep", args=[project.slug, number])
        )
    messages.success(request, f"{run} waits for a worker, which compares it with the live version.")
    return redirect("run", project.slug, run.number)
