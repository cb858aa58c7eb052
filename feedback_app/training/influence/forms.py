"""The form of a run without a group of votes."""

from django import forms

from feedback_app.training.influence.groups import KINDS
from feedback_app.web.forms import StrictForm


class WithoutForm(StrictForm):
    """A group of the report, by its kind and key; the empty key is that of answers without a
    topic."""

    kind = forms.ChoiceField(choices=[(kind, kind) for kind in KINDS])
    key = forms.CharField(max_length=80, required=False, strip=False)
