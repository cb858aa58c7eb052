"""Forms of the page of prompts."""

from django import forms

from feedback_app.feedback.models import Prompt
from feedback_app.feedback.prompts.editing import LONGEST, MOST_PASTED
from feedback_app.web.forms import StrictForm

TOPIC = Prompt._meta.get_field("topic").max_length


def topic_field() -> forms.CharField:
    return forms.CharField(
        required=False,
        max_length=TOPIC,
        label="Topic",
        help_text="One or two words; the queue can be filtered by it.",
        widget=forms.TextInput(attrs={"list": "topics", "autocomplete": "off"}),
    )


class PromptsForm(StrictForm):
    """Prompts to add."""

    text = forms.CharField(
        max_length=MOST_PASTED * LONGEST,
        label="Prompts",
        help_text="One per line. Prompts of several lines are separated by lines with three "
        f"hyphens (---). At most {MOST_PASTED} at once; import a file with more.",
        widget=forms.Textarea(attrs={"rows": 6}),
    )
    topic = topic_field()


class PromptForm(StrictForm):
    """The last message and the topic of a prompt."""

    text = forms.CharField(
        max_length=LONGEST, label="Text", widget=forms.Textarea(attrs={"rows": 4})
    )
    topic = topic_field()
