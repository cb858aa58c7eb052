"""Forms for gold items and pauses."""

from django import forms

from feedback_app.feedback.models import Verdict
from feedback_app.web.forms import StrictForm


class GoldForm(StrictForm):
    """The right verdict on an answer and the reason for it."""

    verdict = forms.ChoiceField(choices=Verdict.choices)
    why = forms.CharField(required=False, max_length=500)


class LiftForm(StrictForm):
    """Lifting a pause; `restore` makes the votes that were set aside count again."""

    restore = forms.BooleanField(required=False)
