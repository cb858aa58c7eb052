"""Reasoning in answers: what a model writes between its marks before the answer itself.

The web app folds the same texts (feedback_app/web/text/reasoning.py); a test holds both together.
"""

import re
from collections.abc import Sequence
from typing import Any

#: (begin, end) of the reasoning: of Qwen, DeepSeek and SmolLM; of others; gpt-oss' channels.
MARKS = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
    ("<|channel|>analysis<|message|>", "<|channel|>final<|message|>"),
)
_ENDS = "|".join(re.escape(end) for _, end in MARKS)
#: Where the chat template has opened the reasoning: its end, on a line of its own.
_END_ALONE = re.compile(rf"^[ \t]*(?:{_ENDS})[ \t]*$", re.MULTILINE)
_MARK = re.compile("|".join(re.escape(mark) for marks in MARKS for mark in marks))
#: More tokens than any mark has, at the end of a prompt.
_TAIL = 16


def answer_start(text: str, *, opened: str = "") -> int | None:
    """Return where the answer begins: 0 without reasoning, None where the reasoning has no end.

    `opened` is the mark that ends a reasoning which the prompt has opened.
    """
    at = 0
    while True:
        rest = text[at:]
        begun = next((end for mark, end in MARKS if rest.lstrip().startswith(mark)), "")
        end = begun or ("" if at else opened)
        if not end:
            break
        found = rest.find(end)
        if found < 0:
            return None
        at += found + len(end)
    if at == 0 and (alone := _END_ALONE.search(text)):
        return alone.end()
    return at


def opened_by(tokenizer: Any, prompt: Sequence[int]) -> str:
    """Return the mark that ends the reasoning which a prompt has opened; empty for most."""
    tail = _decoded(tokenizer, prompt[-_TAIL:]).rstrip()
    return next((end for mark, end in MARKS if tail.endswith(mark)), "")


def answer_index(tokenizer: Any, prompt: Sequence[int], completion: Sequence[int]) -> int | None:
    """Return the number of the completion's tokens before the answer, blanks after the reasoning
    included; None where nothing but reasoning is there."""
    whole = _decoded(tokenizer, completion)
    start = answer_start(whole, opened=opened_by(tokenizer, prompt))
    if not start:
        return start
    low, high = 1, len(completion)
    while low < high:  # the fewest tokens that spell the reasoning
        middle = (low + high) // 2
        if len(_decoded(tokenizer, completion[:middle])) >= start:
            high = middle
        else:
            low = middle + 1
    while low < len(completion) and (text := _decoded(tokenizer, completion[low : low + 1])):
        if text.strip():
            break
        low += 1
    said = tokenizer.decode(list(completion[low:]), skip_special_tokens=True)
    return low if said.strip() else None


def unmarked(reasoning: str) -> str:
    """Return reasoning without its marks."""
    return _MARK.sub("\n\n", reasoning).strip()


def _decoded(tokenizer: Any, ids: Sequence[int]) -> str:
    return str(
        tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
    )
