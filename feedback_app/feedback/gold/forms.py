"""Forms about gold items, pauses and the last word."""

from django import forms

from feedback_app.feedback.models import Verdict
from feedback_app.web.forms import StrictForm


class GoldForm(StrictForm):
    """The right verdict on an answer, and why it is right."""

    verdict = forms.ChoiceField(choices=Verdict.choices)
    why = forms.CharField(required=False, max_length=500)


class LiftForm(StrictForm):
    """Letting somebody go on. `restore` says that the votes that were set aside count again."""

    restore = forms.BooleanField(required=False)
