"""The form for an adjudicator's verdict."""

from django import forms

from feedback_app.feedback.gold.forms import GoldForm


class VerdictForm(GoldForm):
    """The resolver's verdict. `show` is the list that they were looking at."""

    show = forms.ChoiceField(choices=[("contested", ""), ("asked", "")], required=False)
