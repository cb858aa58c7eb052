"""Forms for webhooks."""

from django import forms

from feedback_app.feedback.models.webhooks import Event
from feedback_app.web.forms import StrictForm


class WebhookForm(StrictForm):
    """A new webhook."""

    url = forms.URLField(
        max_length=500,
        label="URL",
        assume_scheme="https",
        help_text="The address of your server, on the public internet.",
        widget=forms.URLInput(attrs={"placeholder": "https://example.com/prospect"}),
    )
    events = forms.MultipleChoiceField(
        choices=Event.choices,
        initial=[Event.RUN_FINISHED, Event.RELEASE_CHANGED],
        label="Events",
        widget=forms.CheckboxSelectMultiple,
    )
