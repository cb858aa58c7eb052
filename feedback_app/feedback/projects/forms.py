"""Forms of a project's settings. Unknown fields are errors."""

from typing import Any, ClassVar

from django import forms
from django.conf import settings

from feedback_app.feedback.guidelines.forms import GuidelinesField
from feedback_app.feedback.models import Project, Verdict
from feedback_app.feedback.models.projects import TEST_PERCENT, VALIDATION_PERCENT
from feedback_app.feedback.projects.reasons import chips_read, chips_text
from feedback_app.feedback.projects.template_kwargs import TemplateKwargsField
from feedback_app.web.forms import StrictFields, StrictForm
from feedback_app.web.seen_values import SeenValues

LAUNCHER_LABELS = {
    "process": "One device",
    "accelerate": "All devices of the worker",
    "ray": "Ray cluster",
}


class SamplingBackForm(StrictForm):
    """Which page an action on a sampling leads back to; Settings unless it says another."""

    back = forms.ChoiceField(
        required=False, choices=[("prompts", "Prompts")], widget=forms.HiddenInput
    )


class SamplingForm(SamplingBackForm):
    """A request for answers to every prompt."""

    answers_per_prompt = forms.IntegerField(
        min_value=1, max_value=8, initial=2, label="Answers per prompt"
    )
    version = forms.CharField(label="Version", required=False)


def launcher_field() -> forms.ChoiceField:
    """Return the choice among the launchers that the installation allows."""
    allowed = [(name, LAUNCHER_LABELS[name]) for name in settings.TRAINER_LAUNCHERS]
    return forms.ChoiceField(
        required=False,
        label="Launcher",
        help_text="What starts the runs of this project.",
        choices=[("", "The installation's default"), *allowed],
    )


class ProjectForm(SeenValues, StrictFields, forms.ModelForm[Project]):
    """The fields of a project that an admin may change; slug and base model are fixed."""

    reasons_down = forms.CharField(
        required=False,
        label="Reasons for a thumb down",
        help_text="One per line, key: label. Votes store the key, so labels can be reworded.",
        widget=forms.Textarea(attrs={"rows": 5}),
    )
    reasons_up = forms.CharField(
        required=False, label="Reasons for a thumb up", widget=forms.Textarea(attrs={"rows": 5})
    )

    class Meta:
        model = Project
        fields: ClassVar = [
            "name",
            "system_prompt",
            "guidelines",
            "overlap",
            "queue_order",
            "validation_percent",
            "test_percent",
            "max_tokens",
            "temperature",
            "top_p",
            "chat_template_kwargs",
            "reasoning",
            "conversation_days",
            "launcher",
            "run_hours",
        ]
        field_classes: ClassVar = {"guidelines": GuidelinesField}
        labels: ClassVar = {
            "overlap": "Votes per answer",
            "queue_order": "Queue order",
            "validation_percent": "Validation prompts, %",
            "test_percent": "Test prompts, %",
            "max_tokens": "Maximum answer length",
            "top_p": "Top-p",
            "reasoning": "Reasoning in answers",
            "conversation_days": "Days to keep conversations",
            "run_hours": "Most hours of a run",
        }
        help_texts: ClassVar = {
            "system_prompt": "Starts every conversation, in sampling, training and the demo.",
            "guidelines": "Markdown. Annotators see it beside every answer.",
            "overlap": "How many people judge each answer, 1 to 10.",
            "queue_order": "Every answer gets its first vote before any gets its second.",
            "validation_percent": "Share of new prompts by which a run chooses its best adapter "
            "and stops in time, 5 to 30. Not trained on.",
            "test_percent": "Share of new prompts on which only the gate compares versions, "
            "5 to 50. No training sees them, so that the comparison is fair.",
            "max_tokens": "Tokens; one is about three quarters of a word.",
            "temperature": "0 always takes the most likely token; 0.8 varies.",
            "top_p": "Samples from the most likely tokens that add up to this probability.",
            "reasoning": "What a model writes between <think> and </think>. People judge the "
            "answer, so training reads the reasoning before it and learns the answer alone.",
            "conversation_days": "Conversations of demo, share links and gateway without a message "
            "for so long are deleted. Answers with a vote stay as examples. Empty: kept.",
            "run_hours": "A run that takes longer writes a checkpoint and ends; it can be resumed. "
            "Empty: no limit but the installation's.",
        }
        widgets: ClassVar = {
            "system_prompt": forms.Textarea(attrs={"rows": 3}),
            "guidelines": forms.Textarea(attrs={"rows": 12}),
            "overlap": forms.NumberInput(attrs={"min": 1, "max": 10}),
            "validation_percent": forms.NumberInput(attrs={"min": 5, "max": 30}),
            "test_percent": forms.NumberInput(attrs={"min": 5, "max": 50}),
            "max_tokens": forms.NumberInput(attrs={"min": 1, "max": 2048}),
            "temperature": forms.NumberInput(attrs={"min": 0, "max": 2, "step": "any"}),
            "top_p": forms.NumberInput(attrs={"min": 0.01, "max": 1, "step": "any"}),
            "conversation_days": forms.NumberInput(attrs={"min": 1, "max": 3650}),
            "run_hours": forms.NumberInput(attrs={"min": 0.1, "max": 720, "step": "any"}),
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["launcher"] = launcher_field()
        self.fields["chat_template_kwargs"] = TemplateKwargsField()
        for verdict in Verdict.values:
            chips = self.instance.reasons.get(verdict, [])
            self.initial[f"reasons_{verdict}"] = chips_text(chips)

    def clean(self) -> dict[str, Any]:
        if unknown := self.unknown():
            raise forms.ValidationError(f"Unknown fields: {', '.join(unknown)}.")
        values = super().clean() or self.cleaned_data
        limits = {
            "overlap": (1, 10),
            "validation_percent": VALIDATION_PERCENT,
            "test_percent": TEST_PERCENT,
            "max_tokens": (1, 2048),
            "temperature": (0, 2),
            "top_p": (0.01, 1),
            "conversation_days": (1, 3650),
            "run_hours": (0.1, 720),
        }
        for name, (low, high) in limits.items():
            value = values.get(name)
            if value is not None and not low <= value <= high:
                self.add_error(name, f"Choose {low:g} to {high:g}.")
        values["reasons"] = {}
        for verdict in Verdict.values:
            field = f"reasons_{verdict}"
            text = values.pop(field, "")
            try:
                # a client that omits the field keeps the present reasons
                text = text if field in self.data else self.initial[field]
                values["reasons"][verdict] = chips_read(text)
            except ValueError as error:
                self.add_error(field, str(error))
        return values
