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


class RenameForm(StrictForm):
    """The name of a conversation."""

    title = forms.CharField(max_length=120, label="Name")


class SearchForm(StrictForm):
    """A search in one's conversations."""

    text = forms.CharField(max_length=200, required=False)


class SettingsForm(StrictForm):
    """What an admin tries in one conversation; without `own_prompt` the project's prompt is used,
    and without a temperature the project's."""

    own_prompt = forms.BooleanField(required=False)
    system_prompt = forms.CharField(max_length=8_000, required=False)
    temperature = forms.FloatField(min_value=0, max_value=2, required=False)
