"""The schedule."""

from dataclasses import fields

from django.contrib import messages
from django.http import HttpResponseBase
from django.shortcuts import redirect

from feedback_app.accounts.models import Role
from feedback_app.feedback.access import project_view
from feedback_app.feedback.models import Project
from feedback_app.training.models import Schedule
from feedback_app.training.runs.views import train_page
from feedback_app.training.schedules.forms import ScheduleForm
from feedback_app.training.schedules.services import Thresholds, schedule_set
from feedback_app.web.htmx import HtmxHttpRequest
from feedback_app.web.responses import action_view


@project_view(Role.ADMIN)
@action_view
def schedule(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    """Save the schedule, or show it again with its errors."""
    stored = Schedule.objects.filter(project=project).first() or Schedule(project=project)
    form = ScheduleForm.of(stored, data=request.POST)
    if status := form.refusal():
        return train_page(request, project, schedule_form=form, status=status)
    values = form.changes()
    names = [field.name for field in fields(Thresholds)]
    thresholds = Thresholds(**{name: values.pop(name) for name in names})
    schedule_set(project=project, by=request.user, thresholds=thresholds, **values)
    messages.success(
        request, "Runs now start automatically." if values["enabled"] else "The schedule is off."
    )
    return redirect("runs", project.slug)
