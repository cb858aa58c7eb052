"""Variables of the base model's chat template, such as enable_thinking."""

import json
from typing import Any

from django import forms

#: Bounds and reserved names of the trainer (trainer/chats/settings.py); a test compares them.
MOST, CHARACTERS = 16, 2_000
RESERVED = frozenset(
    "messages conversation tools documents chat_template add_generation_prompt tokenize "
    "continue_final_message padding truncation max_length return_tensors return_dict "
    "return_assistant_tokens_mask tokenizer_kwargs bos_token eos_token pad_token unk_token "
    "raise_exception strftime_now".split()
)


class TemplateKwargsField(forms.JSONField):
    """A JSON object of variables; empty for none."""

    def __init__(self) -> None:
        super().__init__(
            required=False,
            label="Chat template variables",
            help_text="A JSON object that the base model's chat template reads, for example "
            '{"enable_thinking": false}. Used in the demo, the API, sampling, training and the '
            "gate.",
            widget=forms.Textarea(attrs={"rows": 2, "spellcheck": "false", "class": "mono"}),
        )

    def clean(self, value: Any) -> Any:
        given = super().clean(value)
        if given in (None, "", {}):
            return {}
        if fault := template_kwargs_fault(given):
            raise forms.ValidationError(fault)
        return given

    def prepare_value(self, value: Any) -> Any:
        return "" if value == {} else super().prepare_value(value)


def template_kwargs_fault(value: object) -> str:
    """Return what is wrong with parsed variables, or nothing."""
    if not isinstance(value, dict):
        return 'Enter a JSON object, such as {"enable_thinking": false}.'
    if len(value) > MOST or len(json.dumps(value)) > CHARACTERS:
        return f"Enter at most {MOST} variables and {CHARACTERS:,} characters."
    if "\\u0000" in json.dumps(value):
        return "Leave out NUL characters."
    for name in value:
        if not name.isidentifier() or name.startswith("_") or name in RESERVED:
            return f"“{name}” cannot be set: the template is given it otherwise."
    return ""
