"""Variables of the base model's chat template, such as enable_thinking."""

import json
from typing import Any

from django import forms
from django.forms.fields import InvalidJSONInput

from feedback_app.feedback.prompts.tools import MOST_DEPTH, too_deep

#: Bounds and reserved names of the trainer (trainer/chats/settings.py); a test compares them.
MOST, CHARACTERS = 16, 2_000
RESERVED = frozenset(
    "messages conversation tools documents chat_template add_generation_prompt tokenize "
    "continue_final_message padding truncation max_length return_tensors return_dict "
    "return_assistant_tokens_mask tokenizer_kwargs bos_token eos_token pad_token unk_token "
    "raise_exception strftime_now".split()
)


DEEP = f"Enter at most {MOST_DEPTH} lists and objects in each other."


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

    def to_python(self, value: Any) -> Any:
        try:
            return super().to_python(value)
        except RecursionError as error:
            raise forms.ValidationError(DEEP) from error

    def clean(self, value: Any) -> Any:
        given = super().clean(value)
        if given in (None, "", {}):
            return {}
        if fault := template_kwargs_fault(given):
            raise forms.ValidationError(fault)
        return given

    def bound_data(self, data: Any, initial: Any) -> Any:
        """Return what is shown again: what was typed, where it cannot be written as JSON."""
        try:
            found = super().bound_data(data, initial)
        except RecursionError:
            return InvalidJSONInput(data)
        return InvalidJSONInput(data) if data and template_kwargs_fault(found) else found

    def prepare_value(self, value: Any) -> Any:
        return "" if value == {} else super().prepare_value(value)


def template_kwargs_fault(value: object) -> str:
    """Return what is wrong with parsed variables, or nothing."""
    if not isinstance(value, dict):
        return 'Enter a JSON object, such as {"enable_thinking": false}.'
    if too_deep(value):
        return DEEP
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        text.encode()
    except ValueError:  # NaN, 1e999, or half of a surrogate pair
        return (
            "Leave out NaN, Infinity and characters that are not in Unicode: no database has them."
        )
    if len(value) > MOST or len(json.dumps(value)) > CHARACTERS:
        return f"Enter at most {MOST} variables and {CHARACTERS:,} characters."
    if "\\u0000" in text:
        return "Leave out NUL characters."
    for name in value:
        if not name.isidentifier() or name.startswith("_") or name in RESERVED:
            return f"“{name}” cannot be set: the template is given it otherwise."
    return ""
