"""Argilla: records as `records.to_json()` writes them, or flattened by `to_list(flatten=True)`."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from feedback_app.feedback.imports.bridges.thumbs import (
    ANSWERS,
    QUESTIONS,
    NotImportable,
    Thumb,
    text_of,
    word_of,
)

NAME = "Argilla record"
FLAT = ".responses"


def thumbs(row: Mapping[str, Any]) -> list[Thumb] | None:
    """Return the vote of a record, or None if the row is none. Raise NotImportable."""
    if isinstance(row.get("fields"), dict) and isinstance(row.get("responses"), dict):
        fields, values = row["fields"], list(nested(row["responses"]))
    elif any(name.endswith(FLAT) for name in row):
        fields, values = row, list(flattened(row))
    else:
        return None
    words = Counter(word_of(value) for value in values if isinstance(value, str | int | float))
    if not words:
        raise NotImportable("the record has no response that is a label or a rating")
    (said, most), *others = words.most_common(2)
    if others and others[0][1] == most:
        raise NotImportable("the responses to this record are tied")
    answer, question = first_of(fields, ANSWERS), first_of(fields, QUESTIONS)
    if not isinstance(answer, str) or question is None:
        raise NotImportable(f"no field is called {', '.join(ANSWERS)} or {', '.join(QUESTIONS)}")
    return [Thumb(chat_of(question), answer, said)]


def nested(responses: Mapping[str, Any]) -> Iterator[object]:
    """Yield the submitted values of the first question that has any."""
    for given in responses.values():
        values = [
            each.get("value")
            for each in (given if isinstance(given, list) else [])
            if isinstance(each, dict) and each.get("status", "submitted") == "submitted"
        ]
        if any(isinstance(value, str | int | float) for value in values):
            yield from values
            return


def flattened(row: Mapping[str, Any]) -> Iterator[object]:
    for name, values in row.items():
        if not name.endswith(FLAT) or not isinstance(values, list):
            continue
        states = row.get(f"{name}.status")
        known = states if isinstance(states, list) else ["submitted"] * len(values)
        submitted = [v for v, s in zip(values, known, strict=False) if s in ("submitted", None)]
        if any(isinstance(value, str | int | float) for value in submitted):
            yield from submitted
            return


def first_of(fields: Mapping[str, Any], names: tuple[str, ...]) -> object:
    return next((fields[name] for name in names if fields.get(name)), None)


def chat_of(question: object) -> object:
    """Return a text, or the messages of a chat field."""
    if not isinstance(question, list):
        return question
    return [
        {"role": each.get("role"), "content": text_of(each.get("content"))}
        for each in question
        if isinstance(each, dict)
    ]
