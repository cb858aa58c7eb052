"""Form of the schedule."""

from typing import Any
from zoneinfo import available_timezones

from django import forms
from django.conf import settings

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
    min_agreement = forms.IntegerField(
        required=False,
        min_value=1,
        max_value=100,
        label="Least agreement, %",
        help_text="No run starts while annotators give the same verdict less often on answers that "
        "several judged. Empty: agreement does not matter.",
    )
    quiet_from = forms.TimeField(
        required=False,
        label="Quiet from",
        widget=forms.TimeInput(format="%H:%M", attrs={"type": "time"}),
    )
    quiet_until = forms.TimeField(
        required=False,
        label="Quiet until",
        help_text="No run starts between these times. One that is in progress goes on.",
        widget=forms.TimeInput(format="%H:%M", attrs={"type": "time"}),
    )
    time_zone = forms.CharField(
        required=False,
        max_length=64,
        label="Time zone",
        widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
    )
    auto_release = forms.BooleanField(
        required=False, label="Release automatically when the gate passes"
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields[
            "time_zone"
        ].help_text = f"An IANA name such as Europe/Berlin. Empty: {settings.SCHEDULE_TIME_ZONE}."

    def in_sentence(self) -> list[forms.BoundField]:
        """Return the fields that the page shows in a sentence, without their errors."""
        return [self["min_new_examples"], self["min_hours"]]

    def waits(self) -> bool:
        """Return whether one of the thresholds is set or has an error."""
        names = ("min_agreement", "quiet_from", "quiet_until", "time_zone")
        return any(self[name].value() or self[name].errors for name in names)

    def clean_time_zone(self) -> str:
        name: str = self.cleaned_data["time_zone"]
        if name and name not in available_timezones():
            raise forms.ValidationError(f"There is no time zone {name}.")
        return name

    def clean(self) -> dict[str, Any]:
        values = super().clean()
        if {"quiet_from", "quiet_until"} & self.errors.keys():
            return values
        begin, end = values.get("quiet_from"), values.get("quiet_until")
        if begin is None and end is not None:
            self.add_error("quiet_from", "Say when the quiet hours begin.")
        elif end is None and begin is not None:
            self.add_error("quiet_until", "Say when the quiet hours end.")
        elif begin is not None and begin == end:
            self.add_error("quiet_until", "This leaves no time for a run.")
        return values

    @classmethod
    def of(cls, schedule: Schedule, *, data: Any = None) -> "ScheduleForm":
        """Return the form that shows a schedule, or what was posted for it."""
        hours = schedule.min_hours
        initial = {
            "enabled": schedule.enabled,
            "min_new_examples": schedule.min_new_examples,
            "min_hours": int(hours) if float(hours).is_integer() else hours,
            "min_agreement": schedule.min_agreement,
            "quiet_from": schedule.quiet_from,
            "quiet_until": schedule.quiet_until,
            "time_zone": schedule.time_zone,
            "auto_release": schedule.auto_release,
        }
        return cls(data, initial=initial)
