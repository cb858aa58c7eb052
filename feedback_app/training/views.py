"""Train: what a run would learn from, starting one, the list of runs, the schedule."""

from typing import Any

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse

from feedback_app.accounts.models import Role
from feedback_app.feedback.access import project_view
from feedback_app.feedback.answers import deed, page, refuse
from feedback_app.feedback.errors import BadRequest
from feedback_app.feedback.forms import NoFields, accepted, query_page, query_strict
from feedback_app.feedback.models import Project
from feedback_app.htmx import HtmxHttpRequest
from feedback_app.training.defaults import RunConfig
from feedback_app.training.erasures import erased_votes
from feedback_app.training.forms import RunForm, ScheduleForm
from feedback_app.training.models import Adapter, Schedule
from feedback_app.training.plan import run_plan
from feedback_app.training.services import (
    adapter_discard,
    adapter_restore,
    run_request,
    schedule_set,
)

PAGE_SIZE = 25


@project_view(Role.ADMIN)
@page
def runs(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    """The page."""
    query_strict(request, ("page",))
    rows = project.runs.newest_first().select_related("snapshot", "requested_by", "adapter")
    context = {
        "project": project,
        "form": RunForm(),
        "page": Paginator(rows, PAGE_SIZE).get_page(query_page(request)),
        "erased": erased_votes(project),
        "schedule": Schedule.objects.filter(project=project).first() or Schedule(project=project),
        **plan_context(project, RunConfig().as_json()),
    }
    return render(request, "training/runs.html", context)


def plan_context(project: Project, config: dict[str, Any]) -> dict[str, Any]:
    return {"project": project, "plan": run_plan(project=project, config=config)}


@project_view(Role.ADMIN)
@page
def run_plan_view(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    """What a run with these settings would train on."""
    form = RunForm({k: v for k, v in request.GET.items() if k != "csrfmiddlewaretoken"})
    accepted(form)
    context = plan_context(project, form.config().as_json())
    return render(request, "training/runs.html#plan-answer", context)


@project_view(Role.ADMIN)
@deed
def run_request_view(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    """Freezes the examples and queues a run."""
    form = RunForm(request.POST)
    values = accepted(form)
    try:
        run = run_request(
            project=project,
            by=request.user,
            config=form.config(),
            auto_release=values["auto_release"],
        )
    except BadRequest as error:
        return refuse(request, str(error), back=reverse("runs", args=[project.slug]))
    return redirect("run", project.slug, run.number)


@project_view(Role.ADMIN)
@deed
def schedule(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    """Sets when runs start by themselves."""
    values = accepted(ScheduleForm(request.POST))
    schedule_set(project=project, by=request.user, **values)
    messages.success(
        request, "Runs start by themselves now." if values["enabled"] else "The schedule is off."
    )
    return redirect("runs", project.slug)


def adapter_of(project: Project, name: str) -> Adapter:
    """The project's own adapter of this name, or 404."""
    return get_object_or_404(Adapter.objects.select_related("project"), project=project, name=name)


@project_view(Role.ADMIN)
@deed
def adapter_discard_view(request: HtmxHttpRequest, project: Project, name: str) -> HttpResponseBase:
    """Takes a version out of the lists; its files are kept."""
    accepted(NoFields(request.POST))
    adapter = adapter_of(project, name)
    try:
        adapter_discard(adapter=adapter, by=request.user)
    except BadRequest as error:
        return refuse(request, str(error), back=run_url(project, adapter))
    messages.info(request, f"{name} was discarded. Its page can restore it.")
    return redirect(run_url(project, adapter))


@project_view(Role.ADMIN)
@deed
def adapter_restore_view(request: HtmxHttpRequest, project: Project, name: str) -> HttpResponseBase:
    """Undoes a discard."""
    accepted(NoFields(request.POST))
    adapter = adapter_of(project, name)
    adapter_restore(adapter=adapter, by=request.user)
    messages.success(request, f"{name} is back.")
    return redirect(run_url(project, adapter))


def run_url(project: Project, adapter: Adapter) -> str:
    """The page of the run that made the adapter."""
    number = project.runs.values_list("number", flat=True).get(pk=adapter.run_id)
    return reverse("run", args=[project.slug, number])
