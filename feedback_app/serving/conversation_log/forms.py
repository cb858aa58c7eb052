"""Forms of the conversation log."""

from django import forms

from feedback_app.web.forms import StrictForm


class FlagForm(StrictForm):
    """Why an answer is flagged."""

    reason = forms.CharField(required=False, max_length=200)
