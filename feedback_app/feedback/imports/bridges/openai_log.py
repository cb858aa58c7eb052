"""Logs of an OpenAI-compatible API with a rating: messages, and the answer beside them or last."""

import json
from collections.abc import Mapping
from typing import Any

from feedback_app.feedback.imports.bridges.thumbs import (
    ANSWERS,
    NotImportable,
    Thumb,
    is_thumb,
    message,
    text_of,
)

NAME = "OpenAI feedback log"
#: Fields with the rating. `rating` says so by itself; the others count if their value is a thumb.
RATINGS = ("rating", "feedback", "thumb", "thumbs", "vote", "score")
ROLES = {"system", "developer", "user", "assistant", "tool"}


def thumbs(row: Mapping[str, Any]) -> list[Thumb] | None:
    """Return the vote of a logged request, or None if the row is none. Raise NotImportable."""
    request = row.get("request")
    asked = request.get("messages") if isinstance(request, dict) else row.get("messages")
    if not isinstance(asked, list) or "label" in row or "gold" in row:
        return None
    rating = rating_of(row)
    if rating is None:
        return None
    if not isinstance(rating, str | int | float):
        raise NotImportable("the rating is neither text nor a number")
    messages = conversation_of(asked)
    beside = next((row[name] for name in ("choices", *ANSWERS) if row.get(name)), None)
    answer = answer_of(row if "choices" in row else beside)
    if not answer:
        if not messages or messages[-1]["role"] != "assistant":
            raise NotImportable("there is no answer: messages end with the user's")
        answer = messages.pop()["content"]
    return [Thumb(messages, answer, rating)]


def rating_of(row: Mapping[str, Any]) -> object:
    """Return the rating, also of an object such as {"feedback": {"value": 1}}; None without one."""
    for name in RATINGS:
        value = row.get(name)
        if isinstance(value, dict):
            inner = (value.get(each) for each in ("rating", "score", "value", "verdict"))
            value = next((each for each in inner if each is not None), None)
        if value is not None and (name == "rating" or is_thumb(value)):
            return value
    return None


def conversation_of(value: object) -> Any:
    """Return messages as role and text, or a text; other shapes are returned for the refusal."""
    value = parsed(value)
    if isinstance(value, dict):
        inner = next((value[k] for k in ("messages", "prompt", "input") if value.get(k)), None)
        if inner is not None:
            return conversation_of(inner) if not isinstance(inner, dict) else inner
        value = [value] if "role" in value else value
    if not isinstance(value, list):
        return value
    return [
        spoken(each)
        for each in value
        if isinstance(each, dict)
        and each.get("role") in ROLES
        and (text_of(each.get("content")) or each.get("tool_calls"))
    ]


def spoken(each: Mapping[str, Any]) -> dict[str, Any]:
    """Return a message with its calls of tools, or the id of the call that it answers."""
    said: dict[str, Any] = message(
        "system" if each["role"] == "developer" else str(each["role"]), each.get("content")
    )
    return said | {name: each[name] for name in ("tool_calls", "tool_call_id") if each.get(name)}


def answer_of(value: object) -> str:
    """Return the text of an answer: text, a message, the last of several, or a response."""
    value = parsed(value)
    if isinstance(value, list):
        value = value[-1] if value else None
    if isinstance(value, dict) and isinstance(value.get("choices"), list):
        first = value["choices"][0] if value["choices"] else None
        value = first.get("message", first) if isinstance(first, dict) else None
    for _ in range(2):  # {"message": {"content": …}}
        if isinstance(value, dict):
            names = ("content", "text", "message", *ANSWERS)
            value = next((value[name] for name in names if value.get(name)), None)
    return text_of(value)


def parsed(value: object) -> object:
    """Return what a text of JSON contains; any other value as it is."""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value
