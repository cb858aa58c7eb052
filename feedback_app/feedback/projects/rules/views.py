"""The rules for a project's votes."""

from copy import copy

from django.contrib import messages
from django.http import HttpResponseBase
from django.shortcuts import redirect, render

from feedback_app.accounts.models import Role
from feedback_app.feedback.access import project_view
from feedback_app.feedback.models import Project
from feedback_app.feedback.projects.rules.forms import RulesForm
from feedback_app.feedback.projects.services import project_change
from feedback_app.web.errors import Conflict
from feedback_app.web.forms import query_strict
from feedback_app.web.htmx import HtmxHttpRequest
from feedback_app.web.responses import action_view, page


@project_view(Role.ADMIN)
def rules(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    """Show the form."""
    return (
        rules_save(request, project) if request.method == "POST" else rules_show(request, project)
    )


@page
def rules_show(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    query_strict(request, ())
    context = {"project": project, "form": RulesForm(instance=project)}
    return render(request, "feedback/rules.html", context)


@action_view
def rules_save(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    """Save the form, or show it again with an error beside each field."""
    form = RulesForm(request.POST, instance=copy(project))
    if status := form.refusal():
        context = {"project": project, "form": form}
        return render(request, "feedback/rules.html", context, status=status)
    try:
        project_change(project=project, by=request.user, changes=form.changes(), before=project)
    except Conflict:
        return rules_save(request, Project.objects.get(pk=project.pk))
    messages.success(request, "Saved.")
    return redirect("rules", project.slug)
