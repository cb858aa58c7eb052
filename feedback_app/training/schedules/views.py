"""The schedule."""

from django.contrib import messages
from django.http import HttpResponseBase
from django.shortcuts import redirect

from feedback_app.accounts.models import Role
from feedback_app.feedback.access import project_view
from feedback_app.feedback.models import Project
from feedback_app.training.schedules.forms import ScheduleForm
from feedback_app.training.schedules.services import schedule_set
from feedback_app.web.forms import validated
from feedback_app.web.htmx import HtmxHttpRequest
from feedback_app.web.responses import action_view


@project_view(Role.ADMIN)
@action_view
def schedule(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    """Save the schedule."""
    values = validated(ScheduleForm(request.POST))
    schedule_set(project=project, by=request.user, **values)
    messages.success(
        request, "Runs now start automatically." if values["enabled"] else "The schedule is off."
    )
    return redirect("runs", project.slug)
