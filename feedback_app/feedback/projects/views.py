"""The home page and a project's settings."""

from copy import copy
from typing import Any

from django.contrib import messages
from django.http import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.http import require_safe
from django_htmx.http import HttpResponseStopPolling

from feedback_app.accounts.models import Membership, Role
from feedback_app.db.bounded_count import LISTED, counted_of
from feedback_app.feedback.access import project_view
from feedback_app.feedback.models import BASE_VERSION, Completion, Example, Project
from feedback_app.feedback.projects.archive import project_archive, project_restore
from feedback_app.feedback.projects.forms import ProjectForm, SamplingBackForm, SamplingForm
from feedback_app.feedback.projects.services import may_create_projects, project_change
from feedback_app.feedback.prompts.completions import sampling_cancel, sampling_request
from feedback_app.feedback.prompts.sampling_panel import sampled_versions, sampling_panel
from feedback_app.feedback.prompts.selectors import sampling_active, sampling_latest
from feedback_app.web.errors import Conflict, UserError
from feedback_app.web.forms import NoFields, validated
from feedback_app.web.htmx import HtmxHttpRequest
from feedback_app.web.responses import action_view

UNJUDGED = "queued AND NOT flagged AND vote_count = 0"
HOME_PAGES = {
    Role.OWNER: "project-home",
    Role.ADMIN: "project-home",
    Role.ANNOTATOR: "annotate",
    Role.VIEWER: "demo",
}


@require_safe
def home(request: HtmxHttpRequest) -> HttpResponseBase:
    """Redirect to the page that this person needs first, or list their projects."""
    memberships = list(
        Membership.objects.filter(user=request.user)
        .select_related("project")
        .order_by("project__name", "pk")
        .annotate(
            ups=counted_of(Membership, Example, "desirable", most=LISTED),
            downs=counted_of(Membership, Example, "NOT desirable", most=LISTED),
            waiting=counted_of(Membership, Completion, UNJUDGED, most=LISTED),
        )
    )
    active = [one for one in memberships if not one.project.archived_at]
    if len(active) == 1 and "all" not in request.GET:
        return redirect(HOME_PAGES[Role(active[0].role)], active[0].project.slug)
    for membership in memberships:
        page = HOME_PAGES[Role(membership.role)]
        # there is nothing to annotate in an archived project
        membership.home_page = (  # type: ignore[attr-defined]
            "demo" if page == "annotate" and membership.project.archived_at else page
        )
    context = {
        "memberships": active,
        "archived": [one for one in memberships if one.project.archived_at],
        "most": LISTED,
        "may_create": may_create_projects(request.user, memberships),
    }
    return render(request, "feedback/home.html", context)


@project_view(Role.OWNER)
@action_view
def project_archive_view(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    """Make the project read-only."""
    validated(NoFields(request.POST))
    project_archive(project=project, by=request.user)
    messages.success(request, f"{project.name} is archived. Owners can restore it.")
    return redirect(f"{reverse('home')}?all=1")


@project_view(Role.OWNER, archived=True)
@action_view
def project_restore_view(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    """Undo the archiving."""
    validated(NoFields(request.POST))
    project_restore(project=project, by=request.user)
    messages.success(request, f"{project.name} is restored.")
    return redirect("project-home", project.slug)


@project_view(Role.ADMIN)
def project_settings(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    """Show or save the settings, or report the progress of a sampling."""
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
        **sampling_panel(project),
    }


@action_view
def settings_save(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    """Save the form, or show it again with an error beside each field."""
    # the form changes its instance: the page header must show the stored values
    form = ProjectForm(request.POST, instance=copy(project))
    if status := form.refusal():
        context = settings_context(project, form)
        return render(request, "feedback/settings.html", context, status=status)
    try:
        project_change(project=project, by=request.user, changes=form.changes(), before=project)
    except Conflict:
        return settings_save(request, Project.objects.get(pk=project.pk))
    messages.success(request, "Saved.")
    return redirect("project-settings", project.slug)


def sampling_status(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    """Show the progress of the sampling; polling ends with it."""
    context: dict[str, Any] = {"project": project, "sampling": sampling_latest(project)}
    if request.GET.get("back") == "prompts":
        context["back"] = "prompts"
    response = render(request, "feedback/_sampling.html#sampling-status", context)
    if sampling_active(project) is None:
        response.status_code = HttpResponseStopPolling.status_code
    return response


@project_view(Role.ADMIN)
@action_view
def sampling_new(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    """Have a version answer every prompt."""
    values = validated(SamplingForm(request.POST))
    version = values["version"] or BASE_VERSION
    if version not in sampled_versions(project):
        raise UserError(f"{project.name} has no version {version} that can answer.")
    if sampling_active(project) is not None:
        messages.error(request, "A sampling is already running. Wait until it has finished.")
    else:
        sampling_request(
            project=project,
            answers_per_prompt=values["answers_per_prompt"],
            version=version,
        )
        messages.success(request, "Sampling started. Answers are added to the queue as they come.")
    return redirect(values["back"] or "project-settings", project.slug)


@project_view(Role.ADMIN)
@action_view
def sampling_cancel_view(request: HtmxHttpRequest, project: Project, pk: int) -> HttpResponseBase:
    """End a sampling; its answers stay in the queue."""
    back = validated(SamplingBackForm(request.POST))["back"]
    sampling = get_object_or_404(project.samplings.select_related("project"), pk=pk)
    try:
        sampling_cancel(sampling=sampling, by=request.user)
    except UserError as error:
        messages.info(request, str(error))
    return redirect(back or "project-settings", project.slug)
