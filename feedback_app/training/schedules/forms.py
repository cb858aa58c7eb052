"""Form of the schedule."""

from django import forms

from feedback_app.web.forms import StrictForm


class ScheduleForm(StrictForm):
    """When runs start automatically."""

    enabled = forms.BooleanField(required=False, label="Train automatically")
    min_new_examples = forms.IntegerField(min_value=1, max_value=1_000_000, label="New examples")
    min_hours = forms.FloatField(min_value=0, max_value=24 * 365, label="Hours between runs")
    auto_release = forms.BooleanField(
        required=False, label="Release automatically when the gate passes"
    )
