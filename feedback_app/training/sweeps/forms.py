"""Forms of sweeps."""

from typing import Any

from django import forms

from feedback_app.training.models import Sweep
from feedback_app.training.runs.config import RunConfig, form_initial
from feedback_app.training.runs.forms import BaseRunForm, field_of
from feedback_app.training.runs.settings import BY_NAME, SETTINGS
from feedback_app.training.sweeps.services import HOURS, Search
from feedback_app.training.sweeps.space import (
    MOST_SETTINGS,
    MOST_TRIALS,
    SEARCHED,
    Values,
    values_read,
)
from feedback_app.web.errors import UserError
from feedback_app.web.forms import StrictForm

PREVIEW, START = "preview", "start"
PLACES = range(1, MOST_SETTINGS + 1)


class SweepForm(BaseRunForm):
    """Settings to vary with their values, how to search, and the settings that all trials share."""

    method = forms.ChoiceField(
        label="Search",
        choices=[
            (Sweep.Method.GRID, "Grid: every combination"),
            (Sweep.Method.RANDOM, "Random: draw trials"),
        ],
    )
    trials = forms.IntegerField(
        label="Trials of a random search",
        min_value=2,
        max_value=MOST_TRIALS,
        initial=8,
        required=False,
        help_text=f"At most {MOST_TRIALS}. A grid has one for each combination.",
    )
    draw_seed = forms.IntegerField(
        label="Seed of the draws",
        min_value=0,
        max_value=2**31 - 1,
        initial=0,
        required=False,
        help_text="The same seed draws the same trials.",
    )
    max_hours = forms.FloatField(
        label="Worker hours at most",
        min_value=HOURS[0],
        max_value=HOURS[1],
        initial=8,
        help_text="Of all trials together. Trials that still wait then are cancelled.",
        widget=forms.NumberInput(attrs={"step": "any"}),
    )
    at_once = forms.IntegerField(
        label="Trials at once",
        min_value=1,
        max_value=MOST_TRIALS,
        initial=1,
        required=False,
        help_text="How many workers it may use at the same time. Other runs go first.",
    )
    early_stopping = forms.BooleanField(
        label="Stop bad trials early",
        required=False,
        initial=True,
        help_text="A trial that is worse than the median of earlier ones at the same share of its "
        "steps goes no further.",
    )
    action = forms.ChoiceField(choices=[(PREVIEW, ""), (START, "")], widget=forms.HiddenInput)

    def places(self) -> list[tuple[forms.BoundField, forms.BoundField]]:
        """Return the fields of each setting to vary and of its values."""
        return [(self[f"setting_{n}"], self[f"values_{n}"]) for n in PLACES]

    def shared_errors(self) -> bool:
        """Return whether a setting that all trials share is invalid."""
        return any(setting.name in self.errors for setting in SETTINGS)

    def search_fields(self) -> list[forms.BoundField]:
        names = ("method", "trials", "draw_seed", "max_hours", "at_once", "early_stopping")
        return [self[name] for name in names]

    def clean(self) -> dict[str, Any]:
        found = super().clean()
        space: dict[str, Values] = {}
        for place in PLACES:
            name, text = found.get(f"setting_{place}"), found.get(f"values_{place}")
            if not name:
                if text:
                    self.add_error(f"setting_{place}", "Choose the setting of these values.")
                continue
            if name in space:
                self.add_error(f"setting_{place}", "This setting is chosen twice.")
                continue
            try:
                space[name] = values_read(name, text or "")
            except UserError as error:
                self.add_error(f"values_{place}", str(error))
        if not space and not self.errors:
            self.add_error("setting_1", "Choose at least one setting to vary.")
        found["space"] = space
        return found

    def search(self) -> Search:
        """Return how to search. Call it for a valid form."""
        values = self.cleaned_data
        return Search(
            space=values["space"],
            method=values["method"],
            trials=values["trials"] or 8,
            seed=values["draw_seed"] or 0,
            early_stopping=values["early_stopping"],
            max_hours=values["max_hours"],
            at_once=values["at_once"] or 1,
        )


SweepForm.base_fields |= {setting.name: field_of(setting) for setting in SETTINGS}
for place in PLACES:
    SweepForm.base_fields[f"setting_{place}"] = forms.ChoiceField(
        label=f"Setting {place}",
        required=False,
        choices=[("", "–"), *((name, BY_NAME[name].label) for name in SEARCHED)],
    )
    SweepForm.base_fields[f"values_{place}"] = forms.CharField(
        label=f"Values of setting {place}",
        required=False,
        max_length=200,
        widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
    )


def sweep_initial(config: RunConfig) -> dict[str, Any]:
    """Return what the form begins with: a grid over the learning rate around a config's."""
    rate = config.learning_rate
    low, high = BY_NAME["learning_rate"].bounds or (rate, rate)
    around = [min(max(rate * times, low), high) for times in (0.25, 0.5, 1, 2)]
    values = ", ".join(f"{value:.3g}" for value in dict.fromkeys(around))
    return form_initial(config) | {"setting_1": "learning_rate", "values_1": values}


class ChooseForm(StrictForm):
    """Names the trial that the gate judges, by the number of its run."""

    run = forms.IntegerField(min_value=1, max_value=2**31 - 1)
