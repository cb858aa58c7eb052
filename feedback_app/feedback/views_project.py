"""Home, the list of examples, and a project's settings."""

from typing import Any

from django.contrib import messages
from django.http import HttpResponseBase
from django.shortcuts import redirect, render
from django.views.decorators.http import require_safe
from django_htmx.http import HttpResponseStopPolling

from feedback_app.accounts.models import Membership, Role
from feedback_app.feedback.access import project_view
from feedback_app.feedback.answers import deed, page
from feedback_app.feedback.forms import ProjectForm, SamplingForm, accepted, query_page
from feedback_app.feedback.listing import (
    CountedPaginator,
    ExampleFilter,
    answers_of,
    examples_counted,
    versions_answered,
)
from feedback_app.feedback.models import BASE_VERSION, Completion, Example, Project
from feedback_app.feedback.querysets import counted, counted_of
from feedback_app.feedback.selectors import sampling_active, sampling_latest
from feedback_app.feedback.services import sampling_request
from feedback_app.feedback.services_settings import project_change
from feedback_app.htmx import HtmxHttpRequest

PAGE_SIZE = 50
HOME_PAGES = {
    Role.OWNER: "runs",
    Role.ADMIN: "runs",
    Role.ANNOTATOR: "annotate",
    Role.VIEWER: "demo",
}


@require_safe
def home(request: HtmxHttpRequest) -> HttpResponseBase:
    """The page that answers 'what now?' for this person; a list where there are several."""
    memberships = list(
        Membership.objects.filter(user=request.user)
        .select_related("project")
        .order_by("project__name", "pk")
        .annotate(
            ups=counted_of(Membership, Example, "desirable"),
            downs=counted_of(Membership, Example, "NOT desirable"),
            waiting=counted_of(Membership, Completion, "queued AND NOT flagged AND vote_count = 0"),
        )
    )
    if len(memberships) == 1 and "all" not in request.GET:
        only = memberships[0]
        return redirect(HOME_PAGES[Role(only.role)], only.project.slug)
    for membership in memberships:
        membership.home_page = HOME_PAGES[Role(membership.role)]  # type: ignore[attr-defined]
    return render(request, "feedback/home.html", {"memberships": memberships})


@project_view(Role.ADMIN)
@page
def examples(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    """What people said: the examples with their answers and votes."""
    versions = versions_answered(project)
    chosen = ExampleFilter.of(request, versions=versions)
    rows = CountedPaginator(chosen.select(project), PAGE_SIZE).get_page(query_page(request))
    context = {
        "project": project,
        "chosen": chosen,
        "versions": versions,
        "page": rows,
        "answers": answers_of(rows),
        "query": chosen.query(),
        "counts": examples_counted(project),
        "flagged": counted(project.completions.filter(flagged=True)),
    }
    template = "feedback/examples.html"
    return render(request, f"{template}#list" if request.htmx else template, context)


@project_view(Role.ADMIN)
def project_settings(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    """Name, prompts, guidelines, numbers, members; and asking for more answers."""
    if request.method == "POST":
        return settings_save(request, project)
    if request.htmx:
        return sampling_status(request, project)
    form = ProjectForm(instance=project)
    return render(request, "feedback/settings.html", settings_context(project, form))


def settings_context(project: Project, form: ProjectForm) -> dict[str, Any]:
    return {
        "project": project,
        "form": form,
        "members": project.memberships.count(),
        "sampling": sampling_latest(project),
        "sampling_form": SamplingForm(initial={"version": project.live_version}),
        "prompts": counted(project.prompts.all()),
        "in_queue": counted(project.completions.filter(queued=True)),
        "unjudged": counted(project.completions.in_queue().filter(vote_count=0)),
    }


@deed
def settings_save(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    """Writes the form, or shows it again with the fault beside each field."""
    form = ProjectForm(request.POST, instance=project)
    if not form.is_valid():
        # the form has written into the instance: the bar must show what is stored
        stored = Project.objects.get(pk=project.pk)
        context = settings_context(stored, form)
        return render(request, "feedback/settings.html", context, status=400)
    project_change(project=project, by=request.user, changes=form.cleaned_data)
    messages.success(request, "Saved.")
    return redirect("project-settings", project.slug)


def sampling_status(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    """How far the sampling is; polling ends with it."""
    context = {"project": project, "sampling": sampling_latest(project)}
    response = render(request, "feedback/settings.html#sampling-status", context)
    if sampling_active(project) is None:
        response.status_code = HttpResponseStopPolling.status_code
    return response


@project_view(Role.ADMIN)
@deed
def sampling_new(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    """Has a version answer every prompt."""
    values = accepted(SamplingForm(request.POST))
    if sampling_active(project) is not None:
        messages.error(request, "Answers are being sampled already: wait until they are there.")
    else:
        sampling_request(
            project=project,
            answers_per_prompt=values["answers_per_prompt"],
            version=values["version"] or BASE_VERSION,
        )
        messages.success(request, "Answers are on their way to the annotation queue.")
    return redirect("project-settings", project.slug)
