"""Settings of chats, which configurations and requests have: variables of the chat template, and
what becomes of reasoning."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

#: What becomes of an answer's reasoning in training: learned like the answer, or only read.
TRAINED, READ = "trained", "read"
REASONING = (TRAINED, READ)
#: Bounds of `chat_template_kwargs`: its keys, and the characters of its JSON.
MOST_KWARGS, KWARGS_CHARACTERS = 16, 2_000
#: Names that the call of a template uses itself.
RESERVED = frozenset(
    "messages conversation tools documents chat_template add_generation_prompt tokenize "
    "continue_final_message padding truncation max_length return_tensors return_dict "
    "return_assistant_tokens_mask tokenizer_kwargs bos_token eos_token pad_token unk_token "
    "raise_exception strftime_now".split()
)


@dataclass(frozen=True)
class ChatSettings:
    """How conversations and answers become tokens: variables of the chat template, and what becomes
    of reasoning in the answers (`REASONING`)."""

    template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    reasoning: str = TRAINED


def template_kwargs_fault(value: object) -> str | None:
    """Return what is wrong with variables for a chat template, which come from a configuration or
    a request."""
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        return "chat_template_kwargs must be a JSON object"
    if len(value) > MOST_KWARGS or len(json.dumps(value)) > KWARGS_CHARACTERS:
        return (
            f"chat_template_kwargs may have {MOST_KWARGS} fields and {KWARGS_CHARACTERS:,} "
            "characters"
        )
    for name in value:
        if not name.isidentifier() or name.startswith("_") or name in RESERVED:
            return f"chat_template_kwargs cannot set {name!r}"
    return None
