"""Forms of runs."""

from typing import Any

from django import forms

from feedback_app.training.runs.config import LABELS, RUN_FIELDS, RunConfig
from feedback_app.web.forms import StrictForm


def number(name: str, *, step: str, help_text: str, **limits: float) -> Any:
    """Return a number field with RunConfig's default; RunConfig checks the limits."""
    default = getattr(RunConfig(), name)
    kind = forms.IntegerField if isinstance(default, int) else forms.FloatField
    widget = forms.NumberInput(attrs={"step": step, **limits})
    return kind(label=LABELS[name], initial=default, help_text=help_text, widget=widget)


class SendBackForm(StrictForm):
    """Sends an example to adjudication, or takes it back."""

    take_back = forms.BooleanField(required=False)


class RunForm(StrictForm):
    """The settings of a run; every field has a default that was measured to work."""

    epochs = number("epochs", step="1", min=1, max=20, help_text="How often each example is seen.")
    batch_size = number(
        "batch_size", step="1", min=2, max=256, help_text="Examples per optimiser step."
    )
    learning_rate = number(
        "learning_rate",
        step="any",
        help_text="Too low has no effect, too high damages the model.",
    )
    beta = number("beta", step="any", help_text="Higher keeps the model closer to its base.")
    lora_r = number("lora_r", step="1", min=1, max=256, help_text="Size of the adapter.")
    kl_brake = number(
        "kl_brake",
        step="any",
        help_text="KL to the base, in nats per token, at which training stops.",
    )
    seed = number("seed", step="1", min=0, help_text="The same seed gives the same run.")
    auto_release = forms.BooleanField(
        required=False,
        label="Release automatically when the gate passes",
    )

    def config(self) -> RunConfig:
        """Return the validated settings. Raises UserError with every value outside its limits."""
        return RunConfig(**{name: self.cleaned_data[name] for name in RUN_FIELDS})
