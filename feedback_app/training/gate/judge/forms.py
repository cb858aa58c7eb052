"""The form of a project's judge model."""

from typing import Any

from django import forms

from feedback_app.training.models import Judge
from feedback_app.web.forms import StrictForm


class JudgeForm(StrictForm):
    """URL, model and API key. The key is never shown: an empty field keeps the stored one."""

    # not a URLField: names of hosts in a private network may have no dot
    url = forms.CharField(
        max_length=500,
        label="URL",
        help_text="Of an OpenAI-compatible server, up to the version: /chat/completions is added.",
        widget=forms.URLInput(attrs={"placeholder": "https://api.example.com/v1"}),
    )
    model = forms.CharField(max_length=200, label="Model", help_text="Its name at the server.")
    api_key = forms.RegexField(
        r"\A[\x21-\x7e]+\Z",
        max_length=1000,
        required=False,
        label="API key",
        error_messages={"invalid": "An API key has no spaces and only ASCII characters."},
        widget=forms.PasswordInput(attrs={"autocomplete": "off"}),
    )

    def __init__(self, *args: Any, key_stored: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["api_key"].help_text = (
            "One is stored and never shown; leave this empty to keep it."
            if key_stored
            else "Stored encrypted and never shown again. Empty for a server that asks for none."
        )

    @classmethod
    def of(cls, judge: Judge | None) -> "JudgeForm":
        """Return the form that shows a judge, without its key."""
        if judge is None:
            return cls()
        initial = {"url": judge.url, "model": judge.model}
        return cls(initial=initial, key_stored=bool(judge.api_key))
