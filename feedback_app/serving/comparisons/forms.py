"""Forms of the comparison page."""

from django import forms

from feedback_app.web.forms import StrictForm


class CompareForm(StrictForm):
    """A question for two versions."""

    question = forms.CharField(required=False, strip=False)
    one = forms.CharField(max_length=80)
    other = forms.CharField(max_length=80)


class JudgeForm(StrictForm):
    """The choice; the service validates it."""

    choice = forms.CharField(max_length=9)
