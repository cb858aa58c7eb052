"""Definitions of the tools that the answers of a conversation could call.

A conversation has one list of them, kept as JSON text in the field `tools` of its first message:
PostgreSQL's jsonb would sort the keys, and a chat template writes them in the order they were sent.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from feedback_app.web.errors import UserError

#: Of one conversation: definitions, characters of their JSON, and lists and objects in each other.
MOST_TOOLS, MOST_CHARACTERS, MOST_DEPTH = 64, 100_000, 32
_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
M = TypeVar("M", bound=Mapping[str, Any])


def tools_text(given: object) -> str:
    """Return definitions (OpenAI's form, as a list or its JSON) as prompts keep them, and "" for
    none. Functions without `{"type": "function"}` around them get it. Raises UserError."""
    found = _parsed(given)
    if found is None or found in ("", []):
        return ""
    if not isinstance(found, list):
        raise UserError("tools is no list of definitions of functions")
    if len(found) > MOST_TOOLS:
        raise UserError(f"tools has {len(found):,} definitions: at most {MOST_TOOLS} are taken")
    if too_deep(found):
        raise UserError(f"tools has more than {MOST_DEPTH} lists and objects in each other")
    wrapped = [_wrapped(each) for each in found]
    faults = [
        f"tool {number} {fault}"
        for number, each in enumerate(wrapped, start=1)
        if (fault := _fault(each))
    ]
    names = [] if faults else [each["function"]["name"] for each in wrapped]
    twice = sorted({name for name in names if names.count(name) > 1})
    faults += [f"two tools are called {name}" for name in twice]
    if faults:
        raise UserError("; ".join(faults))
    return _written(wrapped)


def with_tools(messages: Sequence[M], tools: str) -> list[M]:
    """Return the messages of a conversation with these definitions, instead of any before."""
    plain: list[Any] = without_tools(messages)
    if tools and plain:
        plain[0] = {**plain[0], "tools": tools}
    return plain


def without_tools(messages: Sequence[M]) -> list[M]:
    """Return the messages as OpenAI's API and chat templates have them."""
    plain: list[Any] = [
        {name: value for name, value in message.items() if name != "tools"}
        if "tools" in message
        else message
        for message in messages
    ]
    return plain


def tools_kept(messages: Sequence[Mapping[str, Any]]) -> str:
    """Return the definitions of a conversation as they are kept, "" for none."""
    return next((message["tools"] for message in messages if message.get("tools")), "")


def tools_of(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the definitions of a conversation, in OpenAI's form."""
    kept = tools_kept(messages)
    found: list[dict[str, Any]] = json.loads(kept) if kept else []
    return found


def tools_fields(messages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return `tools` for a request or a line of a file; nothing where there are none."""
    found = tools_of(messages)
    return {"tools": found} if found else {}


def _parsed(given: object) -> object:
    if not isinstance(given, str):
        return given
    if len(given) > MOST_CHARACTERS:
        raise UserError(_size_fault(len(given)))
    try:
        return json.loads(given) if given.strip() else ""
    except (ValueError, RecursionError) as error:
        raise UserError("tools is no valid JSON") from error


def too_deep(found: object) -> bool:
    """Return whether parsed JSON has more than MOST_DEPTH lists and objects in each other: with
    hundreds of them, writing it where the stack is deep fails."""
    level = [found]
    for _ in range(MOST_DEPTH):
        level = [
            each
            for one in level
            if isinstance(one, dict | list)
            for each in (one.values() if isinstance(one, dict) else one)
        ]
        if not level:
            return False
    return any(isinstance(each, dict | list) for each in level)


def _wrapped(each: object) -> Any:
    bare = isinstance(each, dict) and "function" not in each and "name" in each
    return {"type": "function", "function": each} if bare else each


def _fault(each: Any) -> str:
    if not isinstance(each, dict) or each.get("type", "function") != "function":
        return "is no definition of a function"
    function = each.get("function")
    if not isinstance(function, dict) or set(each) - {"type", "function"}:
        return "is no definition of a function"
    name = function.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        return "needs a name of up to 64 letters, digits and . _ : -"
    if not isinstance(function.get("description") or "", str):
        return f"({name}) has a description that is no text"
    if not isinstance(function.get("parameters") or {}, dict):
        return f"({name}) has parameters that are no JSON schema"
    return ""


def _written(wrapped: Sequence[Mapping[str, Any]]) -> str:
    try:
        text = json.dumps(
            [{"type": "function", "function": each["function"]} for each in wrapped],
            ensure_ascii=False,
            allow_nan=False,
            separators=(",", ":"),
        )
        text.encode()
    except (TypeError, ValueError) as error:  # dates of a Parquet file, half of a surrogate pair
        raise UserError("tools has values that are not in JSON") from error
    if len(text) > MOST_CHARACTERS:
        raise UserError(_size_fault(len(text)))
    if "\\u0000" in text:
        raise UserError("tools has a NUL character, which cannot be stored")
    return text


def _size_fault(count: int) -> str:
    return f"tools has {count:,} characters: at most {MOST_CHARACTERS:,} are taken"
