"""The form that names an adapter."""

from django import forms

from feedback_app.web.forms import StrictForm


class AdapterForm(StrictForm):
    """Deeds on a version may say why."""

    reason = forms.CharField(required=False, max_length=200)
