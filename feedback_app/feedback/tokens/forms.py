"""The form for a new API token."""

from django import forms

from feedback_app.accounts.models import Scope
from feedback_app.web.forms import StrictForm


class TokenForm(StrictForm):
    """A new API token."""

    name = forms.CharField(
        max_length=60, label="Name", help_text="Where it will be used, for example 'Help centre'."
    )
    scopes = forms.MultipleChoiceField(
        choices=Scope.choices,
        initial=[Scope.CHAT, Scope.FEEDBACK],
        label="May be used for",
        widget=forms.CheckboxSelectMultiple,
    )
