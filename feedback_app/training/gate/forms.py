"""The form of a gate's rules: one line for each guard, with a checkbox and its margin."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django import forms
from django.forms import BoundField

from feedback_app.training.gate.settings import GUARDS, GateSettings, Guard
from feedback_app.web.forms import StrictForm
from feedback_app.web.seen_values import SeenValues

MARGIN = "{margin}"


@dataclass(frozen=True)
class GuardLine:
    """A guard on the page: its sentence in two parts, with the field of its margin between them."""

    guard: Guard
    before: str
    after: str
    on: BoundField
    margin: BoundField

    @property
    def fields(self) -> tuple[BoundField, BoundField]:
        return self.on, self.margin


class GateRulesForm(SeenValues, StrictForm):
    """Primary rule, guards and the budget. Fields `on_<key>` and `margin_<key>` for each guard."""

    primary = forms.ChoiceField(
        label="What must be better",
        choices=[
            ("auto", "Predicted up-rate where it can be trusted, else the ranking of test votes"),
            ("up", "Predicted up-rate of new answers"),
            ("ranking", "Ranking of test votes"),
            ("judge", "Judge model"),
            ("people", "People, who compare pairs of answers without knowing whose they are"),
        ],
        help_text="With people, annotators find pairs of answers above their queue when a run has "
        "ended. The gate decides when their choices are clear, or all pairs are judged.",
    )
    against_live = forms.ChoiceField(
        label="Against a live adapter",
        choices=[
            ("better", "It must be better than live"),
            ("not_worse", "It must be better than the base and not worse than live"),
        ],
        help_text="A judge model and people compare with live alone: there it must be better.",
    )
    minimum_auc = forms.FloatField(
        label="The predicted up-rate counts from",
        min_value=0.5,
        max_value=1,
        help_text="Area under the ROC curve on votes that it has not learned from; 0.5 is chance.",
    )
    minimum_kappa = forms.FloatField(
        label="A judge model counts from",
        min_value=0,
        max_value=1,
        help_text="Cohen's κ with people's votes; 0 is chance, 1 is the same.",
    )
    worthwhile = forms.FloatField(
        label="A gain that matters, points",
        min_value=0.1,
        max_value=50,
        help_text="A version that is surely not better by this much fails.",
    )
    prompts = forms.IntegerField(
        label="Test prompts at first",
        min_value=10,
        max_value=400,
        help_text="Two answers of each version to every one of them.",
    )
    minutes = forms.FloatField(
        label="Minutes for sampling",
        min_value=0,
        max_value=24 * 60,
        help_text="If rules are still undecided, more answers are sampled once, within this time.",
    )
    judge_minutes = forms.FloatField(
        label="Minutes for the judge model",
        min_value=1,
        max_value=24 * 60,
        help_text="For an evaluation: 60 pairs of voted answers and 200 test prompts at most.",
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for key, guard in GUARDS.items():
            self.fields[f"on_{key}"] = forms.BooleanField(required=False, label=guard.label)
            self.fields[f"margin_{key}"] = forms.FloatField(
                label=f"Margin of “{guard.label}”",
                min_value=guard.scale * guard.least,
                max_value=guard.scale * guard.most,
                # the sentence around it is no label
                widget=forms.NumberInput(
                    attrs={"step": "any", "aria-label": f"Margin of “{guard.label}”"}
                ),
            )
        for name in ("minimum_auc", "minimum_kappa", "worthwhile", "minutes", "judge_minutes"):
            self.fields[name].widget.attrs["step"] = "any"

    @classmethod
    def of(cls, settings: GateSettings, *, data: Any = None) -> "GateRulesForm":
        """Return the form that shows these settings, or what was posted for them."""
        values: dict[str, Any] = {
            name: getattr(settings, name) for name in ("primary", "against_live", "prompts")
        }
        values["minimum_auc"] = _shown(settings.minimum_auc)
        for name in ("minutes", "minimum_kappa", "judge_minutes"):
            values[name] = _shown(getattr(settings, name))
        values["worthwhile"] = _shown(100 * settings.worthwhile)
        for key, guard in GUARDS.items():
            values[f"on_{key}"] = key in settings.margins
            margin = settings.margins.get(key, guard.margin)
            values[f"margin_{key}"] = _shown(guard.scale * margin)
        return cls(data, initial=values)

    def settings(self) -> GateSettings:
        """Return the settings of a valid form."""
        values = self.cleaned_data
        return GateSettings(
            primary=values["primary"],
            against_live=values["against_live"],
            minimum_auc=values["minimum_auc"],
            worthwhile=values["worthwhile"] / 100,
            prompts=values["prompts"],
            minutes=values["minutes"],
            minimum_kappa=values["minimum_kappa"],
            judge_minutes=values["judge_minutes"],
            margins={
                key: values[f"margin_{key}"] / guard.scale
                for key, guard in GUARDS.items()
                if values[f"on_{key}"]
            },
        )

    def lines(self) -> Iterator[GuardLine]:
        """Yield the guards in their order."""
        for key, guard in GUARDS.items():
            before, _, after = guard.sentence.partition(MARGIN)
            unit = f" {guard.unit}" if guard.unit in ("%", "points") else ""
            yield GuardLine(guard, before, unit + after, self[f"on_{key}"], self[f"margin_{key}"])


def _shown(value: float) -> float:
    """Return a number as people write it: 7 for 0.07 · 100, which is 7.000000000000001."""
    rounded = round(value, 6)
    return int(rounded) if rounded.is_integer() else rounded
