"""The Train page: the plan of a run, the list of runs, and each run's page."""

from typing import Any

from django.contrib import messages
from django.db.models import Prefetch
from django.http import HttpResponseBase, JsonResponse, StreamingHttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django_htmx.http import HttpResponseStopPolling

from feedback_app.accounts.models import Role
from feedback_app.feedback.access import project_view
from feedback_app.feedback.adjudication.services import adjudication_request, adjudication_withdraw
from feedback_app.feedback.models import Project
from feedback_app.training.forgetting.erased_votes import erased_votes
from feedback_app.training.forgetting.selectors import forgetting_of_live
from feedback_app.training.gate.people.selectors import batch_progress
from feedback_app.training.gate.report import (
    changes,
    comparisons,
    evidence,
    gate_rows,
    judge_figures,
    misfits,
    needs,
    versions_of,
)
from feedback_app.training.models import Adapter, Run, Schedule
from feedback_app.training.pushes.views import push_context
from feedback_app.training.runs.advice import run_advice
from feedback_app.training.runs.claims import erasing
from feedback_app.training.runs.config import RunConfig, form_initial, start_version
from feedback_app.training.runs.curves.selectors import metrics_csv, run_curves
from feedback_app.training.runs.fit import fit_of_run
from feedback_app.training.runs.forms import PresetForm, RunForm, SendBackForm
from feedback_app.training.runs.planning.memory import memory_measured, memory_of
from feedback_app.training.runs.planning.plan import RunPlan, run_plan_shown
from feedback_app.training.runs.presets import BY_KEY, Preset, preset_config
from feedback_app.training.runs.services import run_cancel, run_request, run_resume
from feedback_app.training.runs.settings import LOSSES, SFT
from feedback_app.training.runs.value_curve import value_curve
from feedback_app.training.runs.waiting import place_of
from feedback_app.training.schedules.forms import ScheduleForm
from feedback_app.training.schedules.own_settings import scheduled_objections, settings_differing
from feedback_app.training.schedules.selectors import next_run
from feedback_app.training.snapshots.content.services import content_read
from feedback_app.web.errors import UserError
from feedback_app.web.forms import (
    NoFields,
    query_choice,
    query_number,
    query_page,
    query_strict,
    validated,
)
from feedback_app.web.htmx import HtmxHttpRequest
from feedback_app.web.pagination import CountedPaginator
from feedback_app.web.responses import action_view, error_response, page

PAGE_SIZE = 25


@project_view(Role.ADMIN)
@page
def runs(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    """Show the Train page; `like` fills in the settings of that run, `preset` those of a preset."""
    query_strict(request, ("page", "like", "preset"))
    like = run_of(project, query_number(request, "like")) if "like" in request.GET else None
    preset = BY_KEY[query_choice(request, "preset", tuple(BY_KEY))]
    chosen = preset if "preset" in request.GET else None
    return train_page(request, project, like=like, preset=chosen, number=query_page(request))


def train_page(
    request: HtmxHttpRequest,
    project: Project,
    *,
    form: RunForm | None = None,
    schedule_form: ScheduleForm | None = None,
    like: Run | None = None,
    preset: Preset | None = None,
    number: int = 1,
    status: int = 200,
) -> HttpResponseBase:
    """Return the Train page, with the forms as they were posted if they are passed."""
    config = preset_config(preset or BY_KEY["default"], project.base_model)
    if like is not None:
        config = RunConfig.stored(like.config)
    if form is not None and form.is_valid():
        config = form.config()
    # not joined: a late page would join the rows of all pages before it
    adapters = Prefetch("adapter", Adapter.objects.defer("report", "gate"))
    # trials that were not chosen are on the page of their sweep
    rows = (
        project.runs.evaluated()
        .newest_first()
        .prefetch_related("snapshot", "requested_by", adapters)
    )
    schedule = Schedule.objects.filter(project=project).first() or Schedule(project=project)
    shown = CountedPaginator(rows, PAGE_SIZE).get_page(number)
    # a project has one at most
    queued = next((run for run in shown if run.status == Run.Status.QUEUED), None)
    context = {
        "project": project,
        "form": form or RunForm(initial=form_initial(config)),
        "like": like,
        "preset": preset,
        "preset_form": PresetForm(initial={"preset": preset.key if preset else "default"}),
        "last": next((run for run in shown if run.facts.get("packs")), None),
        "page": shown,
        **waiting_context(queued),
        "erased": erased_votes(project),
        "forgetting": forgetting_of_live(project),
        "content": content_read(project),
        "schedule": schedule,
        "next_run": next_run(project) if schedule.enabled else None,
        "schedule_differs": settings_differing(schedule, project),
        "schedule_form": schedule_form or ScheduleForm.of(schedule),
        **plan_context(project, config, form),
    }
    context["schedule_objections"] = schedule_objections(project, schedule, context["plan"])
    return render(request, "training/runs.html", context, status=status)


def schedule_objections(
    project: Project, schedule: Schedule, shown: RunPlan | None
) -> tuple[str, ...]:
    """Return why a run of the schedule would be refused; `shown` is the plan of the page's form,
    which is that of a schedule without settings of its own."""
    if schedule.enabled and schedule.config is not None:
        return scheduled_objections(schedule, project)
    return shown.objections if shown is not None else ()


def plan_context(project: Project, config: RunConfig, form: RunForm | None) -> dict[str, Any]:
    plan = run_plan_shown(project=project, config=config)
    context = {"project": project, "plan": plan, "ignored": form.ignored() if form else ""}
    if plan is None or not plan.train_total:
        return context
    measured = memory_measured(project)
    examples = plan.train_up if config.loss == SFT else plan.train_total
    if measured is None:
        return context | {"memory_unknown": True}
    return context | {"memory": memory_of(measured, config, examples=examples)}


@project_view(Role.ADMIN)
@page
def run_plan_view(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    """Show what a run with these settings would train on, or which of them are invalid."""
    form = RunForm({k: v for k, v in request.GET.items() if k != "csrfmiddlewaretoken"})
    if request.htmx and not form.is_valid():
        context: dict[str, Any] = {"project": project, "problems": form.problems()}
    else:
        validated(form)
        context = plan_context(project, form.config(), form)
    return render(request, "training/runs.html#plan-answer", context)


@project_view(Role.ADMIN)
@action_view
def run_request_view(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    """Take a snapshot of the examples and queue a run."""
    form = RunForm(request.POST)
    if not form.is_valid():
        return train_page(request, project, form=form, status=400)
    try:
        run = run_request(
            project=project,
            by=request.user,
            config=form.config(),
            auto_release=form.cleaned_data["auto_release"],
        )
    except UserError as error:
        # the plan on the page shows the same objections: here is what was posted
        form.add_error(None, str(error))
        return train_page(request, project, form=form, status=400)
    return redirect("run", project.slug, run.number)


# -- one run


NOTES_SHOWN = 60


def run_of(project: Project, number: int) -> Run:
    """Return the project's run of this number, or raise 404."""
    rows = Run.objects.select_related("project", "snapshot", "requested_by", "adapter", "sweep")
    return get_object_or_404(rows, project=project, number=number)


def waiting_context(run: Run | None) -> dict[str, Any]:
    """Return what pages say of a run that waits: its place, or that it has none for an erasure."""
    if run is None or run.status != Run.Status.QUEUED:
        return {"place": None}
    place = place_of(run)
    return {"place": place, "erasing": place is None and erasing(run.project)}


def live_context(run: Run) -> dict[str, Any]:
    metrics = list(run.metrics.order_by("-step")[:40])[::-1]
    return {
        "project": run.project,
        "run": run,
        **waiting_context(run),
        "notes": run.notes.order_by("-pk")[:NOTES_SHOWN],
        "advice": run_advice(metrics, kl_brake=run.config.get("kl_brake")),
        "start_version": start_version(run.config),
        "loss": dict(LOSSES).get(run.config.get("loss", "kto"), ""),
        "seconds_a_step": sum(m.seconds for m in metrics) / len(metrics) if metrics else None,
    }


def result_context(run: Run) -> dict[str, Any]:
    adapter = getattr(run, "adapter", None)
    if adapter is None:
        return {"adapter": None}
    fit = fit_of_run(run)
    return {
        "adapter": adapter,
        "is_live": run.project.live_version == adapter.name,
        "versions": versions_of(adapter),
        "gate": gate_rows(adapter),
        "opponent": adapter.gate.get("opponent", "base"),
        "evidence": evidence(adapter),
        "judge": judge_figures(adapter),
        "people": batch_progress(adapter),
        **push_context(adapter),
        "needs": needs(adapter),
        "changes": changes(adapter),
        "comparisons": comparisons(adapter),
        "misfits": misfits(run, fit),
        "curve": value_curve(run, fit),
    }


@project_view(Role.ADMIN)
@page
def run(request: HtmxHttpRequest, project: Project, number: int) -> HttpResponseBase:
    """Show a run."""
    found = run_of(project, number)
    context = live_context(found) | result_context(found)
    return render(request, "training/run.html", context)


@project_view(Role.ADMIN)
@page
def run_live(request: HtmxHttpRequest, project: Project, number: int) -> HttpResponseBase:
    """Show the progress; once the run has ended, stop polling and reload the page."""
    found = run_of(project, number)
    response = render(request, "training/run.html#live-answer", live_context(found))
    if not found.active:
        response.status_code = HttpResponseStopPolling.status_code
        response["HX-Refresh"] = "true"
    return response


@project_view(Role.ADMIN)
@page
def run_metrics(request: HtmxHttpRequest, project: Project, number: int) -> HttpResponseBase:
    """Return the metrics as columns, from the step after `after` on; of a long run fewer points."""
    query_strict(request, ("after",))
    after = query_number(request, "after", default="0")
    found = run_of(project, number)
    return JsonResponse(run_curves(found, after=after).as_json() | {"active": found.active})


@project_view(Role.ADMIN)
@page
def run_metrics_csv(request: HtmxHttpRequest, project: Project, number: int) -> HttpResponseBase:
    """Return the metrics of every step."""
    query_strict(request, ())
    found = run_of(project, number)
    response = StreamingHttpResponse(metrics_csv(found), content_type="text/csv; charset=utf-8")
    name = f"{project.slug}-run-{number}-metrics.csv"
    response["Content-Disposition"] = f'attachment; filename="{name}"'
    return response


@project_view(Role.ADMIN)
@action_view
def misfit_send_back(
    request: HtmxHttpRequest, project: Project, number: int, pk: int
) -> HttpResponseBase:
    """Send an example that fits badly to adjudication; `take_back` undoes it."""
    taken_back = validated(SendBackForm(request.POST))["take_back"]
    run = run_of(project, number)
    item = get_object_or_404(run.snapshot.items.select_related("completion"), completion=pk)
    back = reverse("run", args=[project.slug, number]) + "#misfits-title"
    try:
        if taken_back:
            adjudication_withdraw(completion=item.completion, by=request.user)
        else:
            why = f"It fits badly in run {number}: the trained model sees it the other way."
            adjudication_request(completion=item.completion, why=why, by=request.user)
    except UserError as error:
        return error_response(request, str(error), back=back)
    messages.info(request, "Undone." if taken_back else "Sent back: see Disagreements.")
    return redirect(back)


@project_view(Role.ADMIN, archived=True)
@action_view
def run_cancel_view(request: HtmxHttpRequest, project: Project, number: int) -> HttpResponseBase:
    """Cancel the run; it writes a checkpoint first if it is running."""
    validated(NoFields(request.POST))
    back = reverse("run", args=[project.slug, number])
    try:
        run_cancel(run=run_of(project, number), by=request.user)
    except UserError as error:
        return error_response(request, str(error), back=back)
    messages.info(request, "Cancelling: a checkpoint is written first, so it can be resumed.")
    return redirect(back)


@project_view(Role.ADMIN)
@action_view
def run_resume_view(request: HtmxHttpRequest, project: Project, number: int) -> HttpResponseBase:
    """Resume the run from its last checkpoint."""
    validated(NoFields(request.POST))
    back = reverse("run", args=[project.slug, number])
    try:
        run_resume(run=run_of(project, number), by=request.user)
    except UserError as error:
        return error_response(request, str(error), back=back)
    messages.success(request, "The run resumes from its last checkpoint, if it has written one.")
    return redirect(back)
