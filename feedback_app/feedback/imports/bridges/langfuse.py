"""Langfuse: traces or observations with their scores, from the API or an export of the table."""

from collections.abc import Iterator, Mapping
from typing import Any

from feedback_app.feedback.imports.bridges.openai_log import answer_of, conversation_of
from feedback_app.feedback.imports.bridges.thumbs import NotImportable, Thumb, is_thumb, word_of

NAME = "Langfuse trace"
#: Names of scores that are thumbs, without regard to case and punctuation.
NAMES = frozenset(
    "userfeedback feedback userscore userrating rating thumb thumbs thumbsup vote like".split()
)


def thumbs(row: Mapping[str, Any]) -> list[Thumb] | None:
    """Return the vote on a trace, or None if the row is none. Raise NotImportable."""
    if "scores" not in row or not {"input", "output"} & row.keys():
        keys = {name.lower().replace("_", "") for name in row}
        if {"traceid", "name", "value"} <= keys and {"datatype", "source"} & keys:
            raise NotImportable("a score without its trace: export the traces with their scores")
        return None
    words = {word_of(value) for value in votes_of(row["scores"])}
    if not words:
        raise NotImportable("the trace has no score that is a thumb")
    if len(words) > 1:
        raise NotImportable("the scores of this trace contradict each other")
    answer = answer_of(row.get("output"))
    if not answer:
        raise NotImportable("the output of this trace is not text")
    return [Thumb(conversation_of(row.get("input")), answer, words.pop())]


def votes_of(scores: object) -> list[object]:
    """Return the values of the scores that people gave as thumbs.

    Named ones come first; without one, any score that can only be a thumb.
    """
    found = [(name, value) for name, value in scores_of(scores) if is_thumb(value)]
    named = [value for name, value in found if plain(name) in NAMES]
    return named or [value for _, value in found]


def scores_of(scores: object) -> Iterator[tuple[str, object]]:
    """Yield (name, value) of the API's list, or of the table's object; without evaluators'."""
    if isinstance(scores, dict):
        for name, values in scores.items():
            for value in values if isinstance(values, list) else [values]:
                yield str(name), value
    elif isinstance(scores, list):
        for score in scores:
            if isinstance(score, dict) and str(score.get("source", "")).upper() != "EVAL":
                text = score.get("stringValue", score.get("string_value"))
                value = score.get("value")
                yield str(score.get("name", "")), text if is_thumb(text) else value


def plain(name: str) -> str:
    return "".join(char for char in name.lower() if char.isalnum())
