"""The form that imports a version."""

from django import forms

from feedback_app.web.forms import StrictForm


class AdapterForm(StrictForm):
    """A ZIP archive with an adapter's files."""

    file = forms.FileField(max_length=1_000)
