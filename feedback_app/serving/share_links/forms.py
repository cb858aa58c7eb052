"""The form for a new share link."""

from django import forms

from feedback_app.web.forms import StrictForm


class ShareLinkForm(StrictForm):
    """A new share link; the service knows the versions."""

    label = forms.CharField(
        max_length=60,
        label="Name",
        help_text="For your own list, for example 'Board meeting'. Visitors do not see it.",
    )
    choice = forms.CharField(max_length=80, label="Version")
    days = forms.IntegerField(min_value=1, max_value=90, initial=7, label="Days it is open")
    messages_limit = forms.IntegerField(
        min_value=1, max_value=100_000, initial=300, label="Messages in all"
    )
    messages_each = forms.IntegerField(
        min_value=1, max_value=1_000, initial=30, label="Messages per visitor"
    )
    votes_limit = forms.IntegerField(
        min_value=0,
        max_value=10_000,
        initial=50,
        label="Thumbs in all",
        help_text="The most votes of its visitors that are saved and may be used for training.",
    )
