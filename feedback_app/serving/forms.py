"""What the demo's forms may contain."""

from django import forms

from feedback_app.feedback.forms import StrictForm


class MessageForm(StrictForm):
    """What the user says; the service checks its length."""

    text = forms.CharField(required=False, strip=False)


class ChoiceForm(StrictForm):
    """The version that answers from now on."""

    choice = forms.CharField(max_length=80)


class CompareForm(StrictForm):
    """A question for two versions."""

    question = forms.CharField(required=False, strip=False)
    one = forms.CharField(max_length=80)
    other = forms.CharField(max_length=80)


class JudgeForm(StrictForm):
    """Which answer is better, or both, or neither; the service knows the choices."""

    choice = forms.CharField(max_length=9)


class ConversationForm(MessageForm):
    """A new conversation may begin with a version and a first message."""

    choice = forms.CharField(max_length=80, required=False)


class SplitChangeForm(StrictForm):
    """How much goes to the candidate, and what happens by itself."""

    percent = forms.IntegerField(min_value=1, max_value=99)
    auto_promote = forms.BooleanField(required=False)
    auto_stop = forms.BooleanField(required=False)


class SplitForm(SplitChangeForm):
    """A new split."""

    candidate = forms.CharField(max_length=80)


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
        min_value=1, max_value=1_000, initial=30, label="Messages a visitor"
    )
    votes_limit = forms.IntegerField(
        min_value=0,
        max_value=10_000,
        initial=50,
        label="Thumbs in all",
        help_text="So many of its visitors' thumbs are kept, and may teach.",
    )
