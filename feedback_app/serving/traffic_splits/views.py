"""Traffic splits: started, changed and ended on the Releases page."""

from django.contrib import messages
from django.http import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect
from django.urls import reverse

from feedback_app.accounts.models import Role
from feedback_app.feedback.access import project_view
from feedback_app.feedback.models import Project
from feedback_app.serving.engine.client import EngineError
from feedback_app.serving.models import TrafficSplit
from feedback_app.serving.traffic_splits.forms import SplitChangeForm, SplitForm
from feedback_app.serving.traffic_splits.services import split_change, split_start, split_stop
from feedback_app.training.models import Adapter
from feedback_app.training.registry.forms import AdapterForm
from feedback_app.web.errors import UserError
from feedback_app.web.forms import validated
from feedback_app.web.htmx import HtmxHttpRequest
from feedback_app.web.responses import action_view, error_response


def split_of(project: Project, pk: int) -> TrafficSplit:
    """Return the project's own split, or raise 404."""
    splits = TrafficSplit.objects.select_related("candidate")
    split: TrafficSplit = get_object_or_404(splits, project=project, pk=pk)
    split.project = project
    return split


@project_view(Role.ADMIN)
@action_view
def split_new(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    """Start a split."""
    back = reverse("releases", args=[project.slug])
    try:
        values = validated(SplitForm(request.POST))
        candidates = Adapter.objects.select_related("project").filter(project=project)
        adapter = candidates.filter(name=values["candidate"]).first()
        if adapter is None:
            raise UserError("This project has no such version.")
        split = split_start(
            project=project,
            adapter=adapter,
            percent=values["percent"],
            auto_promote=values["auto_promote"],
            auto_stop=values["auto_stop"],
            by=request.user,
        )
    except (UserError, EngineError) as error:
        return error_response(request, str(error), back=back)
    messages.success(request, f"{split}: conversations that begin from now on are split.")
    return redirect(back)


@project_view(Role.ADMIN)
@action_view
def split_change_view(request: HtmxHttpRequest, project: Project, pk: int) -> HttpResponseBase:
    """Change the percentage, or what happens automatically."""
    split = split_of(project, pk)
    back = reverse("releases", args=[project.slug])
    try:
        values = validated(SplitChangeForm(request.POST))
        split_change(split=split, by=request.user, **values)
    except UserError as error:
        return error_response(request, str(error), back=back)
    messages.success(request, "Saved. Conversations that have begun keep their version.")
    return redirect(back)


@project_view(Role.ADMIN, archived=True)
@action_view
def split_stop_view(request: HtmxHttpRequest, project: Project, pk: int) -> HttpResponseBase:
    """End a split."""
    split = split_of(project, pk)
    back = reverse("releases", args=[project.slug])
    try:
        reason = validated(AdapterForm(request.POST))["reason"]
        split_stop(split=split, by=request.user, reason=reason or "Stopped manually.")
    except UserError as error:
        return error_response(request, str(error), back=back)
    messages.success(request, f"Stopped: {project.live_version} answers everybody.")
    return redirect(back)
