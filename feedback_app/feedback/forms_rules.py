"""The form of a project's rules for votes."""

from typing import Any, ClassVar

from django import forms

from feedback_app.feedback.forms import StrictFields
from feedback_app.feedback.models import Project

MOST = 1_000_000


class RulesForm(StrictFields, forms.ModelForm[Project]):
    """How fast one person may vote, and how much of a snapshot may be theirs."""

    class Meta:
        model = Project
        fields: ClassVar = ["votes_per_hour", "person_share", "person_floor"]
        labels: ClassVar = {
            "votes_per_hour": "Votes an hour",
            "person_share": "One person's share of a snapshot, %",
            "person_floor": "Votes that are always taken",
        }
        help_texts: ClassVar = {
            "votes_per_hour": "The most that one person may give within an hour; 0: no limit.",
            "person_share": "At most so much of what a run learns from; 100: no cap.",
            "person_floor": "Of each person, whatever share they are.",
        }
        widgets: ClassVar = {
            "votes_per_hour": forms.NumberInput(attrs={"min": 0, "max": MOST}),
            "person_share": forms.NumberInput(attrs={"min": 1, "max": 100}),
            "person_floor": forms.NumberInput(attrs={"min": 0, "max": MOST}),
        }

    def clean(self) -> dict[str, Any]:
        if unknown := self.unknown():
            raise forms.ValidationError(f"Unknown fields: {', '.join(unknown)}.")
        values = super().clean() or self.cleaned_data
        for name in ("votes_per_hour", "person_floor"):
            if (values.get(name) or 0) > MOST:
                self.add_error(name, f"Choose {MOST:,} at most.")
        return values
