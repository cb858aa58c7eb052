"""The judge model's part of the page of a gate's rules."""

from django.contrib import messages
from django.http import HttpResponseBase
from django.shortcuts import redirect

from feedback_app.accounts.models import Role
from feedback_app.feedback.access import project_view
from feedback_app.feedback.models import Project
from feedback_app.training.gate.judge.forms import JudgeForm
from feedback_app.training.gate.judge.services import (
    KeyNeeded,
    judge_of,
    judge_remove,
    judge_save,
    judge_try,
)
from feedback_app.training.gate.views import rules_page
from feedback_app.web.errors import UserError
from feedback_app.web.forms import NoFields, validated
from feedback_app.web.htmx import HtmxHttpRequest
from feedback_app.web.responses import action_view


@project_view(Role.ADMIN)
@action_view
def gate_judge(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    """Store the judge model."""
    stored = judge_of(project)
    form = JudgeForm(request.POST, key_stored=bool(stored and stored.api_key))
    if form.is_valid():
        try:
            judge_save(project=project, by=request.user, **form.cleaned_data)
        except KeyNeeded as error:
            form.add_error("api_key", str(error))
        except UserError as error:
            form.add_error("url", str(error))
        else:
            messages.success(request, "Judge model saved. Try it before a run needs it.")
            return redirect("gate-rules", project.slug)
    return rules_page(request, project, judge_form=form, status=400)


@project_view(Role.ADMIN)
@action_view
def gate_judge_test(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    """Ask the stored judge model one question and show what it answers."""
    validated(NoFields(request.POST))
    judge = judge_of(project)
    if judge is None:
        raise UserError("Save a judge model first.")
    return rules_page(request, project, trial=judge_try(judge))


@project_view(Role.ADMIN)
@action_view
def gate_judge_remove(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    """Delete the judge model with its key."""
    validated(NoFields(request.POST))
    judge_remove(project=project, by=request.user)
    messages.success(request, "Judge model and API key deleted.")
    return redirect("gate-rules", project.slug)
