"""The form for an adjudicator's verdict."""

from django import forms

from feedback_app.feedback.gold.forms import GoldForm


class VerdictForm(GoldForm):
    """A final verdict; `show` is the list that it was given on."""

    show = forms.ChoiceField(choices=[("contested", ""), ("asked", "")], required=False)
