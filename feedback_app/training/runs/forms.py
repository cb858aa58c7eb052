"""Forms of runs."""

from collections.abc import Callable, Iterator
from typing import Any

from django import forms

from feedback_app.training.runs.config import (
    CHECKPOINTING,
    RUN_FIELDS,
    RunConfig,
    form_initial,
    mismatches,
)
from feedback_app.training.runs.presets import PRESETS
from feedback_app.training.runs.settings import (
    GROUPS,
    LOSSES,
    SETTINGS,
    UNUSED,
    WITHOUT_BETA,
    Setting,
)
from feedback_app.web.forms import StrictForm

#: How a form posts that a setting has no value, or the weight of SFT none.
NOT_GIVEN = (None, "", "0", "0.0")


def field_of(setting: Setting) -> Any:
    """Return the form field of a setting, with RunConfig's default and the setting's limits."""
    common: dict[str, Any] = {
        "label": setting.label,
        "help_text": setting.help,
        "initial": form_initial(RunConfig())[setting.name],
    }
    if setting.choices:
        if not setting.empty:
            return forms.ChoiceField(choices=setting.choices, **common)
        return forms.TypedChoiceField(
            choices=setting.choices,
            required=False,
            empty_value=None,
            coerce=lambda value: CHECKPOINTING.get(value, value),
            **common,
        )
    if setting.bounds is None:
        return forms.BooleanField(required=False, **common)
    low, high = setting.bounds
    attrs: dict[str, Any] = {"step": 1, "min": low, "max": high}
    if not setting.whole:
        attrs = {"step": "any"}
    if setting.empty:
        attrs["placeholder"] = setting.empty
        common["help_text"] = f"{setting.help} Empty: {setting.empty}."
    kind = forms.IntegerField if setting.whole else forms.FloatField
    return kind(
        required=not setting.empty,
        validators=[within(low, high)],
        widget=forms.NumberInput(attrs=attrs),
        **common,
    )


def within(low: float, high: float) -> Callable[[float], None]:
    """Return a validator of numbers from `low` to `high`."""

    def check(value: float) -> None:
        if not low <= value <= high:
            raise forms.ValidationError(f"Choose {low:.10g} to {high:.10g}.")

    return check


class SendBackForm(StrictForm):
    """Sends an example to adjudication, or takes it back."""

    take_back = forms.BooleanField(required=False)


class PresetForm(StrictForm):
    """Chooses the settings that the form of a run begins with."""

    preset = forms.ChoiceField(
        label="Preset",
        choices=[(preset.key, preset.label) for preset in PRESETS],
        help_text=" ".join(f"{preset.label}: {preset.help}" for preset in PRESETS),
        # it is no part of the run's form around it
        widget=forms.Select(attrs={"form": "preset-form"}),
    )


class Group:
    """A group of settings on the page."""

    def __init__(self, form: "RunForm", title: str) -> None:
        self.title = title
        self.fields = [form[setting.name] for setting in SETTINGS if setting.group == title]
        self.collapsed = GROUPS[title] and not any(field.errors for field in self.fields)


class BaseRunForm(StrictForm):
    """What a form of settings does besides having fields."""

    def groups(self) -> Iterator[Group]:
        """Yield the settings in groups, in the order of the page."""
        return (Group(self, title) for title in GROUPS)  # type: ignore[arg-type]

    def clean(self) -> dict[str, Any]:
        found = super().clean()
        for name in UNUSED.get(found.get("loss", ""), ()):
            # also one that is invalid: its field is hidden
            self.errors.pop(name, None)
            found[name] = RunConfig.sft_weight if name == "sft_weight" else None
        # a β that is left empty is the default, which not every loss has
        if "beta" in found and found["beta"] is None and found.get("loss") not in WITHOUT_BETA:
            found["beta"] = RunConfig.beta
        for name, fault in mismatches(found).items():
            self.add_error(name, fault)
        return found

    def problems(self) -> list[str]:
        """Return every error of the form, with the label of its field."""
        return [
            f"{self[name].label}: {error}" if name in self.fields else str(error)
            for name, errors in self.errors.items()
            for error in errors
        ]

    def ignored(self) -> str:
        """Return a sentence about values that were given for settings which the loss does not
        have; empty if there are none, and for a form that was not posted."""
        loss = self.cleaned_data.get("loss", "") if self.is_bound and self.is_valid() else ""
        names = [name for name in UNUSED.get(loss, ()) if self[name].value() not in NOT_GIVEN]
        if not names:
            return ""
        labels = [str(self[name].label) for name in names]
        listed = " and ".join([", ".join(labels[:-1]), labels[-1]] if labels[1:] else labels)
        used = "their values are" if labels[1:] else "its value is"
        return f"{dict(LOSSES)[loss]} has no {listed}: {used} not used."

    def config(self) -> RunConfig:
        """Return the validated settings."""
        return RunConfig(**{name: self.cleaned_data[name] for name in RUN_FIELDS})


class RunForm(BaseRunForm):
    """The settings of a run; every field has a default that was measured to work."""

    auto_release = forms.BooleanField(
        required=False,
        label="Release automatically when the gate passes",
    )


RunForm.base_fields |= {setting.name: field_of(setting) for setting in SETTINGS}
