"""The form of a project's rules for votes."""

from typing import Any, ClassVar

from django import forms

from feedback_app.feedback.models import Project
from feedback_app.web.forms import StrictFields

MOST = 1_000_000
LIMITS = {
    "votes_per_hour": MOST,
    "person_floor": MOST,
    "gold_every": 1_000,
    "gold_least": 100,
    "gold_window": 100,
}


class RulesForm(StrictFields, forms.ModelForm[Project]):
    """How fast one person may vote, and how much of a snapshot may be theirs."""

    class Meta:
        model = Project
        fields: ClassVar = [
            "votes_per_hour",
            "person_share",
            "person_floor",
            "gold_every",
            "gold_feedback",
            "gold_least",
            "gold_window",
        ]
        labels: ClassVar = {
            "votes_per_hour": "Votes an hour",
            "person_share": "One person's share of a snapshot, %",
            "person_floor": "Votes that are always taken",
            "gold_every": "One in so many is gold",
            "gold_feedback": "People learn how they did",
            "gold_least": "Right at least, %",
            "gold_window": "Of their last",
        }
        help_texts: ClassVar = {
            "votes_per_hour": "The most that one person may give within an hour; 0: no limit.",
            "person_share": "At most so much of what a run learns from; 100: no cap.",
            "person_floor": "Of each person, whatever share they are.",
            "gold_every": "By chance, say 20; 0: none is handed out.",
            "gold_feedback": "With the reason that its admin gave.",
            "gold_least": "Whoever is right less often is paused.",
            "gold_window": "Gold items; nobody is paused before they judged so many.",
        }
        widgets: ClassVar = {
            "votes_per_hour": forms.NumberInput(attrs={"min": 0, "max": MOST}),
            "person_share": forms.NumberInput(attrs={"min": 1, "max": 100}),
            "person_floor": forms.NumberInput(attrs={"min": 0, "max": MOST}),
            "gold_every": forms.NumberInput(attrs={"min": 0, "max": 1000}),
            "gold_least": forms.NumberInput(attrs={"min": 0, "max": 100}),
            "gold_window": forms.NumberInput(attrs={"min": 1, "max": 100}),
        }

    def clean(self) -> dict[str, Any]:
        if unknown := self.unknown():
            raise forms.ValidationError(f"Unknown fields: {', '.join(unknown)}.")
        values = super().clean() or self.cleaned_data
        for name, most in LIMITS.items():
            if (values.get(name) or 0) > most:
                self.add_error(name, f"Choose {most:,} at most.")
        return values
