"""Forms of the demo."""

from django import forms

from feedback_app.web.forms import StrictForm


class MessageForm(StrictForm):
    """A user message; the service checks its length."""

    text = forms.CharField(required=False, strip=False)


class ChoiceForm(StrictForm):
    """The version that answers from now on."""

    choice = forms.CharField(max_length=80)


class ConversationForm(MessageForm):
    """A new conversation may begin with a version and a first message."""

    choice = forms.CharField(max_length=80, required=False)
