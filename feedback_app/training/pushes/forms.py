"""The form that pushes a version."""

from django import forms

from feedback_app.training.pushes.destinations import FORMS, LONGEST
from feedback_app.web.forms import StrictForm


class PushForm(StrictForm):
    """Names where a version's files are sent."""

    destination = forms.CharField(
        max_length=LONGEST,
        label="Destination",
        help_text=f"{FORMS}. A repository that does not exist is created as a private one.",
        widget=forms.TextInput(attrs={"autocapitalize": "none", "spellcheck": "false"}),
    )
