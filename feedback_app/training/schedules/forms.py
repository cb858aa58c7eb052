"""Form of the schedule."""

from typing import Any

from django import forms

from feedback_app.training.models import Schedule
from feedback_app.web.forms import StrictForm
from feedback_app.web.seen_values import SeenValues


class ScheduleForm(SeenValues, StrictForm):
    """When runs start automatically."""

    enabled = forms.BooleanField(required=False, label="Train automatically")
    min_new_examples = forms.IntegerField(
        min_value=1,
        max_value=1_000_000,
        label="New examples",
        # the sentence around it is no label
        widget=forms.NumberInput(attrs={"aria-label": "New examples"}),
    )
    min_hours = forms.FloatField(
        min_value=0,
        max_value=24 * 365,
        label="Hours between runs",
        widget=forms.NumberInput(attrs={"aria-label": "Hours between runs", "step": "any"}),
    )
    auto_release = forms.BooleanField(
        required=False, label="Release automatically when the gate passes"
    )

    @classmethod
    def of(cls, schedule: Schedule, *, data: Any = None) -> "ScheduleForm":
        """Return the form that shows a schedule, or what was posted for it."""
        hours = schedule.min_hours
        initial = {
            "enabled": schedule.enabled,
            "min_new_examples": schedule.min_new_examples,
            "min_hours": int(hours) if float(hours).is_integer() else hours,
            "auto_release": schedule.auto_release,
        }
        return cls(data, initial=initial)
