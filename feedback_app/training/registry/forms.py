"""Forms of adapters."""

from django import forms

from feedback_app.web.forms import StrictForm


class AdapterForm(StrictForm):
    """An action on a version, with an optional reason."""

    reason = forms.CharField(required=False, max_length=200)
