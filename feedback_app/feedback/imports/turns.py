"""Messages of a file in the form that prompts store: text, calls of tools and their results.

Files have OpenAI's form, or that of training data: arguments as an object, calls without ids,
results without the id of their call. Nothing is left out silently: a message with an image or
another thing that is no text is refused.
"""

import json
from collections.abc import Mapping
from typing import Any

from feedback_app.feedback.prompts.services import MOST_CALLS, Message, message_new

#: Kinds of content that no text model reads.
NOT_TEXT = (
    *("image_url", "input_image", "image", "image_file", "input_audio", "audio", "audio_url"),
    *("file", "video", "video_url"),
)


class NoText(Exception):
    """The message cannot be imported; the text is the reason, without the message's place."""


def turns_read(values: list[Any]) -> list[Message]:
    """Return the messages. Raises NoText."""
    turns: list[Message] = []
    waiting: list[str] = []
    for number, value in enumerate(values, start=1):
        try:
            turn = turn_read(value, number=number, waiting=waiting)
        except NoText as error:
            raise NoText(f"message {number} {error}") from error
        turns.append(turn)
    return turns


def turn_read(value: object, *, number: int, waiting: list[str]) -> Message:
    """Return one message. `waiting` are the ids of calls whose results have not come yet, which it
    changes. Raises NoText."""
    if not isinstance(value, dict) or not isinstance(value.get("role"), str):
        raise NoText("has no role and content as text")
    role, calls = value["role"], value.get("tool_calls")
    content = content_read(value.get("content"))
    if calls:
        found = [call_read(call, f"call{number:03}{n:02}") for n, call in enumerate(listed(calls))]
        waiting[:] = [call["id"] for call in found]
        return message_new(role, content or "", tool_calls=found)
    if content is None:
        raise NoText("has no role and content as text")
    if role != "tool":
        return message_new(role, content)
    given = value.get("tool_call_id")
    call_id = given if isinstance(given, str) and given else next(iter(waiting), "")
    if call_id in waiting:
        waiting.remove(call_id)
    return message_new(role, content, tool_call_id=call_id)


def content_read(content: object) -> str | None:
    """Return a text, or the text of parts; None for nothing. Raises NoText."""
    if content is None or isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise NoText("has no role and content as text")
    texts = []
    for part in content:
        text = part.get("text") if isinstance(part, dict) else part
        if isinstance(part, dict) and part.get("type") in NOT_TEXT:
            raise NoText(f"has content of the kind {part['type']}: only text can be imported")
        if not isinstance(text, str):
            raise NoText("has no role and content as text")
        texts.append(text)
    return "\n".join(texts)


def call_read(call: object, own_id: str) -> dict[str, Any]:
    """Return a call in OpenAI's form; `own_id` is taken if it has none. Raises NoText."""
    function = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(call, dict) or not isinstance(function, dict):
        raise NoText("has tool_calls that are no functions")
    name, arguments = function.get("name"), function.get("arguments", {})
    if not isinstance(name, str) or not name:
        raise NoText("has a call of a tool without a name")
    if not isinstance(arguments, str):
        try:
            arguments = json.dumps(arguments, ensure_ascii=False)
        except RecursionError as error:  # reading them takes less of the stack
            raise NoText("has a call of a tool whose arguments are nested too deeply") from error
    given = call.get("id")
    return {
        "id": given if isinstance(given, str) and given else own_id,
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }


def listed(calls: object) -> list[Any]:
    if not isinstance(calls, list) or len(calls) > MOST_CALLS:
        raise NoText(f"has tool_calls that are no list of at most {MOST_CALLS}")
    return calls


def texts_of(message: Mapping[str, Any]) -> list[str]:
    """Return all texts that a message stores."""
    calls = [call["function"] for call in message.get("tool_calls") or []]
    named = [text for call in calls for text in (call["name"], call["arguments"])]
    ids = [call["id"] for call in message.get("tool_calls") or []]
    tools = message.get("tools") or ""
    return [message["content"], message.get("tool_call_id") or "", tools, *named, *ids]
