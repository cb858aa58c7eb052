"""The schedule."""

from dataclasses import fields

from django.contrib import messages
from django.http import HttpResponseBase
from django.shortcuts import redirect, render

from feedback_app.accounts.models import Role
from feedback_app.feedback.access import project_view
from feedback_app.feedback.models import Project
from feedback_app.training.models import Schedule
from feedback_app.training.runs.views import train_page
from feedback_app.training.schedules.forms import ScheduleForm
from feedback_app.training.schedules.own_settings import (
    ScheduleSettingsForm,
    schedule_settings_set,
)
from feedback_app.training.schedules.services import Thresholds, schedule_set
from feedback_app.web.forms import query_strict
from feedback_app.web.htmx import HtmxHttpRequest
from feedback_app.web.responses import action_view, page


@project_view(Role.ADMIN)
@action_view
def schedule(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    """Save the schedule, or show it again with its errors."""
    form = ScheduleForm.of(schedule_of(project), data=request.POST)
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


@project_view(Role.ADMIN)
def schedule_settings(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    """Show the settings of scheduled runs, or save them."""
    shown = schedule_settings_save if request.method == "POST" else schedule_settings_show
    return shown(request, project)


@page
def schedule_settings_show(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    query_strict(request, ())
    form = ScheduleSettingsForm.of(schedule_of(project), project)
    context = {"project": project, "form": form}
    return render(request, "training/schedule_settings.html", context)


@action_view
def schedule_settings_save(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    form = ScheduleSettingsForm.of(schedule_of(project), project, data=request.POST)
    if status := form.refusal():
        context = {"project": project, "form": form}
        return render(request, "training/schedule_settings.html", context, status=status)
    schedule_settings_set(project=project, by=request.user, config=form.chosen())
    messages.success(request, "Scheduled runs use these settings from now on.")
    return redirect("runs", project.slug)


def schedule_of(project: Project) -> Schedule:
    """Return the project's schedule, or one that is not stored yet."""
    return Schedule.objects.filter(project=project).first() or Schedule(project=project)
