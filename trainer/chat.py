"""Messages to token ids: one place, so that training context equals serving context."""

from collections.abc import Mapping, Sequence
from typing import Any

from trainer.errors import Refused


def prompt_ids(tokenizer: Any, messages: Sequence[Mapping[str, str]]) -> list[int]:
    """Token ids of the conversation up to where the assistant begins to write.

    The template runs in transformers' sandbox. Raises Refused, with the template's own words,
    when it is missing, broken or cannot express the conversation.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise Refused("The base model has no chat template: choose an instruction-tuned model.")
    try:
        ids = tokenizer.apply_chat_template(
            list(messages), add_generation_prompt=True, tokenize=True, return_dict=False
        )
    except Exception as error:  # templates raise whatever their authors chose
        raise Refused(f"The base model's chat template refused the messages: {error}") from error
    return [int(token) for token in ids]


def eos_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """Every token that ends an answer: the generation config may name several."""
    found: set[int] = set()
    for value in (
        getattr(getattr(model, "generation_config", None), "eos_token_id", None),
        tokenizer.eos_token_id,
    ):
        if isinstance(value, int):
            found.add(value)
        elif value is not None:
            found.update(int(token) for token in value)
    return frozenset(found)
