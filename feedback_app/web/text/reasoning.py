"""Reasoning in answers: what a model writes between its marks before the answer itself.

The trainer separates the same texts (trainer/data/reasoning.py); a test holds both together.
"""

import re
from dataclasses import dataclass

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
#: A mark at the beginning or the end of reasoning, which is not shown.
_MARK = re.compile("|".join(re.escape(mark) for marks in MARKS for mark in marks))


@dataclass(frozen=True)
class Parts:
    """A text without its marks; `finished` is false where the reasoning has no end, and so no
    answer follows."""

    reasoning: str
    answer: str
    finished: bool = True


def parts_of(text: str) -> Parts:
    """Return the reasoning and the answer of a text; most have no reasoning."""
    at = 0
    while begun := next((end for mark, end in MARKS if text[at:].lstrip().startswith(mark)), ""):
        found = text.find(begun, at)
        if found < 0:
            return Parts(_unmarked(text), "", finished=False)
        at = found + len(begun)
    if at == 0 and (alone := _END_ALONE.search(text)):
        at = alone.end()
    return Parts(_unmarked(text[:at]), text[at:].lstrip() if at else text)


def answer_of(text: str) -> str:
    """Return a text without its reasoning."""
    return parts_of(text).answer


def _unmarked(reasoning: str) -> str:
    return _MARK.sub("\n\n", reasoning).strip()
