"""The form that confirms the deletion of a project."""

from typing import Any

from django import forms

from feedback_app.feedback.models import Project
from feedback_app.web.forms import StrictForm


class DeleteForm(StrictForm):
    """Confirms a deletion, which cannot be undone, by typing the project's address."""

    slug = forms.CharField(
        max_length=50,
        label="Address of the project",
        widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
    )

    def __init__(self, *args: Any, project: Project, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.project = project
        self.fields["slug"].help_text = f"Type {project.slug} to confirm."

    def clean_slug(self) -> str:
        slug: str = self.cleaned_data["slug"]
        if slug.strip() != self.project.slug:
            raise forms.ValidationError(f"Type {self.project.slug} to delete this project.")
        return slug
