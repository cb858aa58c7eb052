"""Forms about gold items, pauses and the last word."""

from django import forms

from feedback_app.feedback.forms import StrictForm
from feedback_app.feedback.models import Verdict


class GoldForm(StrictForm):
    """The right verdict on an answer, and why it is right."""

    verdict = forms.ChoiceField(choices=Verdict.choices)
    why = forms.CharField(required=False, max_length=500)


class VerdictForm(GoldForm):
    """The resolver's verdict. `show` is the list that they were looking at."""

    show = forms.ChoiceField(choices=[("contested", ""), ("asked", "")], required=False)


class LiftForm(StrictForm):
    """Letting somebody go on. `restore` says that the votes that were set aside count again."""

    restore = forms.BooleanField(required=False)
