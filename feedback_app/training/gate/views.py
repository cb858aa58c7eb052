"""The page of a gate's rules."""

from django.contrib import messages
from django.http import HttpResponseBase
from django.shortcuts import redirect, render

from feedback_app.accounts.models import Role
from feedback_app.feedback.access import project_view
from feedback_app.feedback.models import Project
from feedback_app.training.gate.forms import GateRulesForm
from feedback_app.training.gate.services import (
    Preview,
    gate_preview,
    gate_settings,
    gate_settings_save,
)
from feedback_app.training.gate.settings import GateSettings
from feedback_app.web.forms import NoFields, query_strict, validated
from feedback_app.web.htmx import HtmxHttpRequest
from feedback_app.web.responses import action_view, page

HISTORY = 20


@project_view(Role.ADMIN)
def gate_rules(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    """Show the rules, or save them."""
    if request.method == "POST":
        return gate_rules_save(request, project)
    return gate_rules_show(request, project)


@page
def gate_rules_show(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    query_strict(request, ())
    return _show(request, project, GateRulesForm.of(gate_settings(project)))


@action_view
def gate_rules_save(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    form = GateRulesForm(request.POST)
    if not form.is_valid():
        return _show(request, project, form, status=400)
    saved = gate_settings_save(project=project, settings=form.settings(), by=request.user)
    messages.success(
        request,
        "Saved. The next run is judged by these rules."
        if saved
        else "Nothing has changed: these rules are in force.",
    )
    return redirect("gate-rules", project.slug)


@project_view(Role.ADMIN)
@action_view
def gate_rules_preview(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    """Show what the posted rules would have said of the latest versions; nothing is stored."""
    form = GateRulesForm(request.POST)
    if not form.is_valid():
        return _show(request, project, form, status=400)
    previews = gate_preview(project, form.settings())
    if request.htmx:
        context = {"project": project, "previews": previews}
        return render(request, "training/gate_rules.html#preview", context)
    return _show(request, project, form, previews=previews)


@project_view(Role.ADMIN)
@action_view
def gate_rules_reset(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    """Put the default rules in force, as a new version."""
    validated(NoFields(request.POST))
    gate_settings_save(project=project, settings=GateSettings(), by=request.user)
    messages.success(request, "The default rules are in force.")
    return redirect("gate-rules", project.slug)


def _show(
    request: HtmxHttpRequest,
    project: Project,
    form: GateRulesForm,
    *,
    status: int = 200,
    previews: list[Preview] | None = None,
) -> HttpResponseBase:
    history = project.gate_rules.select_related("saved_by").order_by("-number")[:HISTORY]
    context = {"project": project, "form": form, "history": history, "previews": previews}
    return render(request, "training/gate_rules.html", context, status=status)
