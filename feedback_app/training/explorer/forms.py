"""The action on selected examples."""

from typing import Any

from django import forms

from feedback_app.training.models import Run
from feedback_app.web.forms import StrictFields

SEND_BACK, EXCLUDE, INCLUDE = "send-back", "exclude", "include"
ACTIONS = (SEND_BACK, "weight-0.25", "weight-0.5", EXCLUDE, INCLUDE)
#: More than one page's: other rows were never shown together.
MOST = 25


class ActionForm(StrictFields, forms.Form):
    """Examples of the run, by the ids of their completions, and what to do with them."""

    action = forms.ChoiceField(choices=[(name, name) for name in ACTIONS])
    item = forms.TypedMultipleChoiceField(coerce=int)

    def __init__(self, data: Any, *, run: Run) -> None:
        super().__init__(data)
        chosen = [value for value in data.getlist("item") if value.isdecimal() and len(value) < 19]
        known = run.snapshot.items.filter(completion__in=chosen[: MOST + 1])
        pks = known.values_list("completion", flat=True)
        self.fields["item"].choices = [(pk, pk) for pk in pks]

    def clean(self) -> dict[str, Any]:
        values = super().clean() or {}
        if len(values.get("item", ())) > MOST:
            raise forms.ValidationError(f"Choose at most {MOST} examples at once.")
        if unknown := self.unknown():
            raise forms.ValidationError(f"Unknown fields: {', '.join(unknown)}.")
        return values

    @property
    def weight(self) -> float | None:
        """The weight that a weighing action sets; None: as the votes say."""
        action = self.cleaned_data["action"]
        if action == EXCLUDE:
            return 0.0
        return None if action == INCLUDE else float(action.removeprefix("weight-"))
