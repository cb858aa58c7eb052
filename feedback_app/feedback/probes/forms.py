"""The form for a new probe."""

from django import forms

from feedback_app.feedback.models import Probe
from feedback_app.feedback.probes.patterns import LONGEST
from feedback_app.feedback.probes.services import LONGEST_NOTE, LONGEST_PROMPT
from feedback_app.web.forms import StrictForm


class ProbeForm(StrictForm):
    """A probe with one message, or with that of `completion`'s prompt in place of its last one."""

    prompt = forms.CharField(
        max_length=LONGEST_PROMPT,
        label="Prompt",
        widget=forms.Textarea(attrs={"rows": 3}),
    )
    kind = forms.ChoiceField(
        label="The answer",
        choices=[
            (Probe.Kind.CONTAINS, "contains the text"),
            (Probe.Kind.LACKS, "does not contain the text"),
            (Probe.Kind.MATCHES, "matches the regular expression"),
            (Probe.Kind.NOT_MATCHES, "does not match the regular expression"),
        ],
    )
    pattern = forms.CharField(
        max_length=LONGEST,
        label="Pattern",
        help_text="Texts are found in upper and lower case; regular expressions (Python) anywhere "
        "in the answer, and in any case if they begin with (?i).",
        widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
    )
    note = forms.CharField(
        required=False,
        max_length=LONGEST_NOTE,
        label="Note",
        help_text="Why the answer must be like that; may be left out.",
    )
    completion = forms.IntegerField(
        required=False, min_value=1, max_value=2**63 - 1, widget=forms.HiddenInput
    )

    def clean_prompt(self) -> str:
        # browsers send CR LF; with it the prompt would be another one
        prompt: str = self.cleaned_data["prompt"]
        return prompt.replace("\r\n", "\n")
