"""Forms of traffic splits."""

from django import forms

from feedback_app.web.forms import StrictForm


class SplitChangeForm(StrictForm):
    """The percentage of the candidate, and what happens automatically."""

    percent = forms.IntegerField(min_value=1, max_value=99)
    auto_promote = forms.BooleanField(required=False)
    auto_stop = forms.BooleanField(required=False)


class SplitForm(SplitChangeForm):
    """A new split."""

    candidate = forms.CharField(max_length=80)
