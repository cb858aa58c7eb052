"""A tokenizer in llama.cpp's form: byte-level BPE, whose way of splitting text has a name there."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gguf

from trainer.errors import Refused
from trainer.models.gguf_base import LLAMA3_WORDS, QWEN2_WORDS


@dataclass(frozen=True)
class Vocabulary:
    """Tokens by id with their types, merges in their order, and the name of the split."""

    tokens: Sequence[str]
    types: Sequence[gguf.TokenType]
    merges: Sequence[str]
    split: str
    ends: dict[str, int | None]
    template: str | None

    def describe(self, writer: gguf.GGUFWriter) -> None:
        """Write everything that llama.cpp needs for tokenising and for chats."""
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(self.split)
        writer.add_token_list(self.tokens)
        writer.add_token_types(self.types)
        writer.add_token_merges(self.merges)
        # prompts come from the chat template, which writes its own first token
        writer.add_add_bos_token(False)
        for name, number in self.ends.items():
            if number is not None:
                getattr(writer, f"add_{name}_token_id")(number)
        if self.template:
            writer.add_chat_template(self.template)


def vocabulary_of(tokenizer: Any, *, size: int) -> Vocabulary:
    """Return the vocabulary of a fast tokenizer, filled up to the model's `size`. Raises Refused
    for one that llama.cpp would split in another way than it was trained."""
    rules = json.loads(tokenizer.backend_tokenizer.to_str())
    split = split_of(rules)
    known = {number: token for token, number in tokenizer.get_vocab().items()}
    added = {entry["id"]: entry for entry in rules["added_tokens"]}
    types = gguf.TokenType

    def kind(number: int) -> gguf.TokenType:
        if number not in known:
            return types.UNUSED
        if number not in added:
            return types.NORMAL
        return types.CONTROL if added[number]["special"] else types.USER_DEFINED

    return Vocabulary(
        tokens=[known.get(number, f"[PAD{number}]") for number in range(size)],
        types=[kind(number) for number in range(size)],
        merges=[one if isinstance(one, str) else " ".join(one) for one in rules["model"]["merges"]],
        split=split,
        ends={
            "bos": tokenizer.bos_token_id,
            "eos": tokenizer.eos_token_id,
            "pad": tokenizer.pad_token_id,
        },
        template=tokenizer.chat_template if isinstance(tokenizer.chat_template, str) else None,
    )


def split_of(rules: dict[str, Any]) -> str:
    """Return llama.cpp's name of how a tokenizer splits text before merging. Raises Refused if it
    is not one of those whose tokens were compared with llama.cpp's."""
    steps = rules["pre_tokenizer"] or {}
    steps = steps.get("pretokenizers", [steps])
    *before, last = steps
    normalizer = (rules["normalizer"] or {}).get("type")
    spelled = last.get("type") == "ByteLevel" and not last["add_prefix_space"]
    if rules["model"]["type"] == "BPE" and spelled:
        kinds = [step["type"] for step in before]
        own_split = last["use_regex"] and normalizer is None
        if own_split and not kinds:
            return "gpt-2"
        if own_split and kinds == ["Digits"] and before[0]["individual_digits"]:
            return "smollm"
        # llama.cpp does not compose characters (NFC): text that is not composed may differ
        words = before[0].get("pattern", {}).get("Regex") if kinds == ["Split"] else None
        if not last["use_regex"] and normalizer in (None, "NFC") and words == QWEN2_WORDS:
            return "qwen2"
        whole = rules["model"].get("ignore_merges")
        if not last["use_regex"] and normalizer is None and words == LLAMA3_WORDS and whole:
            return "llama-bpe"
    raise Refused(
        "GGUF is written for the byte-level BPE of GPT-2, SmolLM, Qwen 2 and Llama 3 only: write "
        "the model with `python -m trainer merge` and convert it with llama.cpp's own script"
    )
