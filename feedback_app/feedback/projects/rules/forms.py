"""The form of a project's voting rules."""

from typing import Any, ClassVar

from django import forms

from feedback_app.feedback.models import Project
from feedback_app.web.forms import StrictFields
from feedback_app.web.seen_values import SeenValues

MOST = 1_000_000
LIMITS = {
    "votes_per_hour": (0, MOST),
    "person_share": (1, 100),
    "person_floor": (0, MOST),
    "edited_weight": (1, 100),
    "gold_every": (0, 1_000),
    "gold_least": (0, 100),
    "gold_window": (1, 100),
}


class RulesForm(SeenValues, StrictFields, forms.ModelForm[Project]):
    """Rate limit, snapshot cap and gold settings."""

    class Meta:
        model = Project
        fields: ClassVar = [
            "votes_per_hour",
            "person_share",
            "person_floor",
            "edited_weight",
            "weigh_by_reliability",
            "follow_ups",
            "gold_every",
            "gold_feedback",
            "gold_least",
            "gold_window",
        ]
        labels: ClassVar = {
            "votes_per_hour": "Votes per hour",
            "person_share": "One person's share of a snapshot, %",
            "person_floor": "Votes always included",
            "edited_weight": "Weight of corrections, %",
            "weigh_by_reliability": "Weigh examples by reliability",
            "follow_ups": "Learn from what readers do next",
            "gold_every": "One gold item in every",
            "gold_feedback": "Show people their result",
            "gold_least": "Minimum accuracy, %",
            "gold_window": "Over the last",
        }
        help_texts: ClassVar = {
            "votes_per_hour": "Limit for one person; 0: no limit.",
            "person_share": "The most that one person may supply of a training set; 100: no cap.",
            "person_floor": "For each person, up to their share of all votes.",
            "edited_weight": "Of the example that a corrected text becomes; 100: as any answer.",
            "weigh_by_reliability": "From the next snapshot on; People shows how reliable each is.",
            "follow_ups": "Regenerating, stopping, asking again; copying, thanking. The demo says "
            "so. It counts little, and only while it agrees with votes: see Quality.",
            "gold_every": "Items, at random, for example 20; 0: no gold items.",
            "gold_feedback": "With the reason that the admin wrote.",
            "gold_least": "People below it are paused.",
            "gold_window": "Gold items; people who have judged fewer are not paused.",
        }
        widgets: ClassVar = {
            "votes_per_hour": forms.NumberInput(attrs={"min": 0, "max": MOST}),
            "person_share": forms.NumberInput(attrs={"min": 1, "max": 100}),
            "person_floor": forms.NumberInput(attrs={"min": 0, "max": MOST}),
            "edited_weight": forms.NumberInput(attrs={"min": 1, "max": 100}),
            "gold_every": forms.NumberInput(attrs={"min": 0, "max": 1000}),
            "gold_least": forms.NumberInput(attrs={"min": 0, "max": 100}),
            "gold_window": forms.NumberInput(attrs={"min": 1, "max": 100}),
        }

    def clean(self) -> dict[str, Any]:
        if unknown := self.unknown():
            raise forms.ValidationError(f"Unknown fields: {', '.join(unknown)}.")
        values = super().clean() or self.cleaned_data
        for name, (low, high) in LIMITS.items():
            value = values.get(name)
            if value is not None and not low <= value <= high:
                self.add_error(name, f"Choose {low:,} to {high:,}.")
        return values
