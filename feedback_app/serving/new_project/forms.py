"""The form of a new project."""

from typing import Any

from django import forms
from django.conf import settings
from django.core.validators import RegexValidator

from feedback_app.feedback.guidelines.forms import GuidelinesField
from feedback_app.feedback.models import Project
from feedback_app.feedback.projects.starter import starter_text
from feedback_app.web.forms import StrictForm

#: Texts to begin guidelines with: their labels and files.
GUIDELINES = {
    "short": ("Short, complete answers", "guidelines.md"),
    "support": ("Customer support", "guidelines_support.md"),
    "writing": ("Writing", "guidelines_writing.md"),
}


class NewProjectForm(StrictForm):
    """Name, address, model and texts of a new project; the rest has defaults."""

    name = forms.CharField(max_length=100, label="Name")
    slug = forms.CharField(
        max_length=50,
        label="Address",
        help_text="Lower-case letters, digits and hyphens: part of URLs and of the versions' "
        "names. It cannot be changed.",
        validators=[
            RegexValidator(
                r"^[a-z0-9][a-z0-9-]*\Z", "Use lower-case letters, digits and hyphens only."
            )
        ],
    )
    base_model = forms.ChoiceField(
        label="Base model",
        help_text="The models of this installation's engines. It cannot be changed.",
    )
    system_prompt = forms.CharField(
        required=False,
        label="System prompt",
        widget=forms.Textarea(attrs={"rows": 3}),
        help_text="Starts every conversation, in sampling, training and the demo.",
    )
    guidelines = GuidelinesField(
        required=False,
        label="Guidelines",
        widget=forms.Textarea(attrs={"rows": 8}),
        help_text="Markdown. Annotators see it beside every answer.",
    )
    guidelines_template = forms.ChoiceField(
        required=False,
        label="Guidelines template",
        choices=[("", "None"), *((key, label) for key, (label, _) in GUIDELINES.items())],
        help_text="Taken where Guidelines is empty; change it under Settings.",
    )
    starter_prompts = forms.BooleanField(
        required=False,
        label="Add 200 starter prompts",
        help_text="Everyday questions in English, to try the loop with.",
    )
    like = forms.CharField(required=False, widget=forms.HiddenInput)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        models = sorted({settings.BASE_MODEL, *settings.ENGINES})
        self.fields["base_model"].choices = [(name, name) for name in models]

    def clean(self) -> dict[str, Any]:
        values = super().clean() or self.cleaned_data
        template = values.pop("guidelines_template", "")
        if template and not values.get("guidelines") and not self.has_error("guidelines"):
            values["guidelines"] = starter_text(GUIDELINES[template][1])
        return values

    def clean_slug(self) -> str:
        slug: str = self.cleaned_data["slug"]
        if Project.objects.filter(slug=slug).exists():
            raise forms.ValidationError(
                "Another project has this address, or had it before it was deleted: choose another "
                "one."
            )
        return slug
