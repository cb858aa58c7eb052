"""The page of a project's probes."""

from typing import Any

from django.contrib import messages
from django.http import Http404, HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse

from feedback_app.accounts.models import Role
from feedback_app.feedback.access import project_view
from feedback_app.feedback.models import Completion, Probe, Project
from feedback_app.feedback.probes.forms import ProbeForm
from feedback_app.feedback.probes.selectors import (
    checked_by_gate,
    newest_results,
    probes_active,
    probes_retired,
)
from feedback_app.feedback.probes.services import (
    MOST_ACTIVE,
    probe_add,
    probe_restore,
    probe_retire,
)
from feedback_app.feedback.prompts.tools import with_tools
from feedback_app.web.errors import UserError
from feedback_app.web.forms import NoFields, query_choice, query_page, query_strict, validated
from feedback_app.web.htmx import HtmxHttpRequest
from feedback_app.web.pagination import ListedPaginator
from feedback_app.web.responses import action_view, error_response, page

PAGE_SIZE = 25
LISTS = {"active": probes_active, "retired": probes_retired}


@project_view(Role.ADMIN)
def probes(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    """Show the probes with a form for another, or add one."""
    if request.method == "POST":
        return probe_new(request, project)
    return probes_show(request, project)


@page
def probes_show(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    """`completion` fills the form with the prompt of this answer."""
    query_strict(request, ("show", "page", "completion"))
    show = query_choice(request, "show", tuple(LISTS))
    completion = None
    if given := request.GET.get("completion"):
        if not given.isdecimal() or len(given) > 18:
            raise UserError("completion must be a number.")
        completion = completion_of(project, int(given))
    initial = {}
    if completion is not None:
        initial = {"prompt": completion.prompt.title, "completion": completion.pk}
    form = ProbeForm(initial=initial)
    return _show(request, project, form, completion, show=show, number=query_page(request))


@action_view
def probe_new(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    """Add a probe; errors are shown in the form."""
    form = ProbeForm(request.POST)
    valid, values = form.is_valid(), form.cleaned_data
    pk = values.get("completion")
    completion = completion_of(project, pk) if pk else None
    if valid:
        before = completion.prompt.before_title if completion else []
        tools = completion.prompt.tools if completion else ""
        try:
            probe_add(
                project=project,
                messages=with_tools(
                    [*before, {"role": "user", "content": values["prompt"]}], tools
                ),
                kind=Probe.Kind(values["kind"]),
                pattern=values["pattern"],
                note=values["note"],
                completion=completion,
                by=request.user,
            )
        except UserError as error:
            form.add_error(None, str(error))
        else:
            messages.success(request, "Added. The next run's gate checks it.")
            return redirect("probes", project.slug)
    return _show(request, project, form, completion, status=400)


@project_view(Role.ADMIN)
@action_view
def probe_retire_view(request: HtmxHttpRequest, project: Project, pk: int) -> HttpResponseBase:
    """Retire a probe."""
    probe = get_object_or_404(project.probes.select_related("project"), pk=pk)
    validated(NoFields(request.POST))
    if probe_retire(probe=probe, by=request.user):
        messages.info(request, "Retired. You can restore it under 'Retired'.")
    return redirect("probes", project.slug)


@project_view(Role.ADMIN)
@action_view
def probe_restore_view(request: HtmxHttpRequest, project: Project, pk: int) -> HttpResponseBase:
    """Make a retired probe active again."""
    probe = get_object_or_404(project.probes.select_related("project"), pk=pk)
    validated(NoFields(request.POST))
    back = reverse("probes", args=[project.slug]) + "?show=retired"
    try:
        if probe_restore(probe=probe, by=request.user):
            messages.success(request, "Restored. The next run's gate checks it.")
    except UserError as error:
        return error_response(request, str(error), back=back)
    return redirect(back)


def completion_of(project: Project, pk: int) -> Completion:
    """Return the project's answer. Raise Http404."""
    rows = project.completions.select_related("prompt").only("text", "version", "prompt")
    completion: Completion | None = rows.filter(pk=pk).first()
    if completion is None:
        raise Http404
    return completion


def _show(
    request: HtmxHttpRequest,
    project: Project,
    form: ProbeForm,
    completion: Completion | None,
    *,
    show: str = "active",
    number: int = 1,
    status: int = 200,
) -> HttpResponseBase:
    found = ListedPaginator(LISTS[show](project), PAGE_SIZE).get_page(number)
    results = newest_results(project)
    context: dict[str, Any] = {
        "project": project,
        "form": form,
        "completion": completion,
        "show": show,
        "page": found,
        "rows": [(probe, results.get(probe.pk)) for probe in found],
        "checked": checked_by_gate(project),
        "most": MOST_ACTIVE,
        "query": f"show={show}",
    }
    return render(request, "feedback/probes.html", context, status=status)
