"""Releases: what was live when, and making a version live."""

from django.contrib import messages
from django.http import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse

from feedback_app.accounts.models import Role
from feedback_app.feedback.access import project_view
from feedback_app.feedback.models import BASE_VERSION, Project
from feedback_app.serving.engine.client import EngineError
from feedback_app.serving.releases.figures import up_rates
from feedback_app.serving.releases.services import release_promote
from feedback_app.serving.releases.timeline import (
    base_is_live,
    candidates,
    fallback_of,
    foreign_rates,
    timeline,
)
from feedback_app.serving.traffic_splits.report import ended_splits, running_split, split_report
from feedback_app.training.forgetting.selectors import forgetting_of_live
from feedback_app.training.models import Adapter
from feedback_app.training.registry.forms import AdapterForm
from feedback_app.web.errors import UserError
from feedback_app.web.forms import query_strict, validated
from feedback_app.web.htmx import HtmxHttpRequest
from feedback_app.web.responses import action_view, error_response, page


@project_view(Role.ADMIN)
@page
def releases(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    """Show the timeline and the versions that could be released."""
    query_strict(request, ())
    counted = up_rates(project)
    rates = counted.by_version
    split = running_split(project)
    entries = timeline(project, rates)
    context = {
        "project": project,
        "split": split_report(split) if split else None,
        "ended_splits": ended_splits(project),
        "entries": entries,
        "candidates": candidates(project, rates),
        "fell_back": fallback_of(entries),
        "forgetting": forgetting_of_live(project),
        "base_is_live": base_is_live(project),
        "foreign": foreign_rates(rates),
        "representative": counted.representative,
        "base_rate": rates.get(BASE_VERSION),
        "rates_known": counted.known,
        "counted_at": counted.counted_at,
    }
    return render(request, "serving/releases.html", context)


@project_view(Role.ADMIN)
@action_view
def release(request: HtmxHttpRequest, project: Project, name: str) -> HttpResponseBase:
    """Make a version live; rolling back is the same action on an older version."""
    values = validated(AdapterForm(request.POST))
    adapter = (
        None
        if name == BASE_VERSION
        else get_object_or_404(
            Adapter.objects.select_related("project"), project=project, name=name
        )
    )
    back = reverse("releases", args=[project.slug])
    try:
        release_promote(project=project, adapter=adapter, by=request.user, reason=values["reason"])
    except (UserError, EngineError) as error:
        return error_response(request, str(error), back=back)
    messages.success(request, f"{name} is live now. Answers in progress are completed.")
    return redirect(back)
