"""The run settings of a schedule: its own, or those that Train begins with."""

from dataclasses import asdict
from typing import Any

from django import forms
from django.db import transaction

from feedback_app.accounts.audit import audit
from feedback_app.accounts.models import User
from feedback_app.feedback.models import Project
from feedback_app.training.models import Schedule
from feedback_app.training.runs.config import RUN_FIELDS, RunConfig, form_initial
from feedback_app.training.runs.forms import BaseRunForm, field_of
from feedback_app.training.runs.planning.plan import run_plan_shown
from feedback_app.training.runs.presets import BY_KEY, preset_config
from feedback_app.training.runs.settings import BY_NAME, SETTINGS
from feedback_app.web.errors import UserError
from feedback_app.web.seen_values import SeenValues

DEFAULT, OWN = "default", "own"


def settings_scheduled(schedule: Schedule | None, project: Project) -> RunConfig:
    """Return the settings of the runs that a schedule starts.

    Raises UserError if settings that an earlier version stored are not valid any more.
    """
    default = preset_config(BY_KEY["default"], project.base_model)
    if schedule is None or schedule.config is None:
        return default
    known = {name: schedule.config[name] for name in RUN_FIELDS if name in schedule.config}
    return RunConfig(**(asdict(default) | known))


def scheduled_objections(schedule: Schedule | None, project: Project) -> tuple[str, ...]:
    """Return why a run with the schedule's settings would be refused now, as far as is counted."""
    try:
        config = settings_scheduled(schedule, project)
    except UserError as error:
        return (str(error),)
    plan = run_plan_shown(project=project, config=config)
    return plan.objections if plan is not None else ()


def settings_differing(schedule: Schedule, project: Project) -> list[str]:
    """Return the labels of the settings in which a schedule differs from what Train begins with."""
    if schedule.config is None:
        return []
    default = asdict(preset_config(BY_KEY["default"], project.base_model))
    return [
        BY_NAME[name].label
        for name in RUN_FIELDS
        if schedule.config.get(name, default[name]) != default[name]
    ]


def schedule_settings_set(*, project: Project, by: User, config: RunConfig | None) -> Schedule:
    """Set the run settings of the project's schedule; None: those that Train begins with."""
    with transaction.atomic():
        stored = None if config is None else asdict(config)
        schedule, _ = Schedule.objects.update_or_create(
            project=project, defaults={"config": stored}
        )
        own = "settings that Train begins with"
        if config is not None:
            differing = settings_differing(schedule, project)
            own = f"own settings: {', '.join(differing) or 'none differs'}"
        audit(project=project, actor=by, action="schedule.settings", target=own[:200])
    return schedule


class ScheduleSettingsForm(SeenValues, BaseRunForm):
    """The settings of scheduled runs."""

    use = forms.ChoiceField(
        label="Scheduled runs use",
        choices=[(DEFAULT, "the settings that Train begins with"), (OWN, "the settings below")],
    )

    @classmethod
    def of(
        cls, schedule: Schedule, project: Project, *, data: Any = None
    ) -> "ScheduleSettingsForm":
        """Return the form that shows a schedule's settings, or what was posted for it; for settings
        that are not valid any more, those that Train begins with."""
        try:
            config = settings_scheduled(schedule, project)
        except UserError:
            config = settings_scheduled(None, project)
        use = DEFAULT if schedule.config is None else OWN
        return cls(data, initial=form_initial(config) | {"use": use})

    def chosen(self) -> RunConfig | None:
        """Return the settings to store. Call it for a valid form."""
        return self.config() if self.cleaned_data["use"] == OWN else None


ScheduleSettingsForm.base_fields |= {setting.name: field_of(setting) for setting in SETTINGS}
