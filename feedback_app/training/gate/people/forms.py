"""The form of a choice between two answers."""

from django import forms

from feedback_app.training.models import PairVote
from feedback_app.web.forms import StrictForm


class PairForm(StrictForm):
    """The choice as the person sees the pair."""

    choice = forms.ChoiceField(choices=PairVote.Side.choices)
