"""The page of a gate's rules."""

from django.contrib import messages
from django.http import HttpResponseBase
from django.shortcuts import redirect, render

from feedback_app.accounts.models import Role
from feedback_app.feedback.access import project_view
from feedback_app.feedback.models import Project
from feedback_app.training.gate.forms import GateRulesForm
from feedback_app.training.gate.judge.forms import JudgeForm
from feedback_app.training.gate.judge.services import Trial, judge_of
from feedback_app.training.gate.services import (
    Preview,
    gate_preview,
    gate_settings,
    gate_settings_save,
)
from feedback_app.training.gate.settings import GateSettings
from feedback_app.web.errors import Conflict
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
    return rules_page(request, project)


@action_view
def gate_rules_save(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    stored = gate_settings(project)
    form = GateRulesForm.of(stored, data=request.POST)
    if status := form.refusal():
        return rules_page(request, project, form=form, status=status)
    settings = form.settings()
    if settings.primary == "judge" and judge_of(project) is None:
        form.add_error("primary", "Set up a judge model first, below.")
        return rules_page(request, project, form=form, status=400)
    try:
        saved = gate_settings_save(
            project=project, settings=settings, by=request.user, before=stored
        )
    except Conflict:
        return gate_rules_save(request, project)
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
        return rules_page(request, project, form=form, status=400)
    previews = gate_preview(project, form.settings())
    if request.htmx:
        context = {"project": project, "previews": previews}
        return render(request, "training/gate_rules.html#preview", context)
    return rules_page(request, project, form=form, previews=previews)


@project_view(Role.ADMIN)
@action_view
def gate_rules_reset(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    """Put the default rules in force, as a new version."""
    validated(NoFields(request.POST))
    gate_settings_save(project=project, settings=GateSettings(), by=request.user)
    messages.success(request, "The default rules are in force.")
    return redirect("gate-rules", project.slug)


def rules_page(
    request: HtmxHttpRequest,
    project: Project,
    *,
    form: GateRulesForm | None = None,
    judge_form: JudgeForm | None = None,
    trial: Trial | None = None,
    status: int = 200,
    previews: list[Preview] | None = None,
) -> HttpResponseBase:
    """Return the page, with the rules and the judge that are stored unless a form is passed.

    `trial`: what the judge model has just answered.
    """
    judge = judge_of(project)
    context = {
        "project": project,
        "form": form or GateRulesForm.of(gate_settings(project)),
        "judge": judge,
        "judge_form": judge_form or JudgeForm.of(judge),
        "trial": trial,
        "history": project.gate_rules.select_related("saved_by").order_by("-number")[:HISTORY],
        "previews": previews,
    }
    return render(request, "training/gate_rules.html", context, status=status)
