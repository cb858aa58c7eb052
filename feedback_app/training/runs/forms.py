"""Forms of runs."""

from collections.abc import Callable
from typing import Any

from django import forms

from feedback_app.training.runs.config import LABELS, LIMITS, RUN_FIELDS, RunConfig
from feedback_app.web.forms import StrictForm


def number(name: str, *, help_text: str) -> Any:
    """Return a number field with RunConfig's default and limits."""
    default = getattr(RunConfig(), name)
    whole = isinstance(default, int)
    low, high = LIMITS[name]
    attrs = {"step": 1, "min": low, "max": high} if whole else {"step": "any"}
    kind = forms.IntegerField if whole else forms.FloatField
    return kind(
        label=LABELS[name],
        initial=default,
        help_text=help_text,
        validators=[within(low, high)],
        widget=forms.NumberInput(attrs=attrs),
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


class RunForm(StrictForm):
    """The settings of a run; every field has a default that was measured to work."""

    epochs = number("epochs", help_text="How often each example is seen.")
    batch_size = number("batch_size", help_text="Examples per optimiser step.")
    learning_rate = number(
        "learning_rate",
        help_text="Too low has no effect, too high damages the model.",
    )
    beta = number("beta", help_text="Higher keeps the model closer to its base.")
    lora_r = number("lora_r", help_text="Size of the adapter.")
    kl_brake = number(
        "kl_brake",
        help_text="KL to the base, in nats per token, at which training stops.",
    )
    seed = number("seed", help_text="The same seed gives the same run.")
    auto_release = forms.BooleanField(
        required=False,
        label="Release automatically when the gate passes",
    )

    def problems(self) -> list[str]:
        """Return every error of the form, with the label of its field."""
        return [
            f"{self[name].label}: {error}" if name in self.fields else str(error)
            for name, errors in self.errors.items()
            for error in errors
        ]

    def config(self) -> RunConfig:
        """Return the validated settings."""
        return RunConfig(**{name: self.cleaned_data[name] for name in RUN_FIELDS})
