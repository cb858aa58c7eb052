"""Messages of a conversation and its tools, in the form of OpenAI's API, and what is wrong with
them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

ROLES = ("system", "user", "assistant", "tool")
#: Definitions of tools of one conversation, and the characters of their JSON.
MOST_TOOLS, TOOLS_CHARACTERS = 64, 200_000
#: Definitions of functions as OpenAI's API has them.
Tools = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class ToolCall:
    """A call of a function that an answer asked for; `arguments` is JSON as the model wrote it."""

    id: str
    name: str
    arguments: str

    def as_dict(self) -> dict[str, Any]:
        function = {"name": self.name, "arguments": self.arguments}
        return {"id": self.id, "type": "function", "function": function}


@dataclass(frozen=True)
class Message:
    """One turn of a conversation. An answer may call tools, and a result of the role `tool` names
    the call that it belongs to."""

    role: str
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form, without the fields that most messages lack."""
        raw: dict[str, Any] = {"role": self.role, "content": self.content}
        if self.tool_calls:
            raw["tool_calls"] = [call.as_dict() for call in self.tool_calls]
        if self.tool_call_id:
            raw["tool_call_id"] = self.tool_call_id
        return raw


def messages_of(raw: Sequence[Mapping[str, Any]]) -> tuple[Message, ...]:
    """Return messages from their checked JSON form."""
    return tuple(
        Message(
            role=message["role"],
            content=message["content"] or "",
            tool_calls=tuple(
                ToolCall(call["id"], call["function"]["name"], call["function"]["arguments"])
                for call in message.get("tool_calls") or ()
            ),
            tool_call_id=message.get("tool_call_id") or "",
        )
        for message in raw
    )


def message_faults(messages: object, name: str = "prompt") -> list[str]:
    """Return what is wrong with a list of messages that a person's turn, or a tool's result, must
    end."""
    if not isinstance(messages, list) or not messages:
        return [f"{name} must be a list of at least one message"]
    for message in messages:
        if not isinstance(message, dict) or message.get("role") not in ROLES:
            return [f"each message of {name} needs a role of {', '.join(ROLES)} and a text content"]
        calls = message.get("tool_calls")
        if calls and not (message["role"] == "assistant" and _are_calls(calls)):
            return [f"tool_calls of {name} need an id, and a function with name and arguments"]
        if not isinstance(message.get("content"), str) and not (calls and not message["content"]):
            return [f"each message of {name} needs a role of {', '.join(ROLES)} and a text content"]
    if messages[-1]["role"] not in ("user", "tool"):
        return [f"{name} must end with a user's turn, not {messages[-1]['role']!r}"]
    return []


def tools_fault(tools: object, name: str = "tools") -> str | None:
    """Return what is wrong with definitions of tools; an empty list, and None, are right."""
    if tools is None:
        return None
    if not isinstance(tools, list) or len(tools) > MOST_TOOLS:
        return f"{name} must be a list of at most {MOST_TOOLS} definitions of functions"
    for number, tool in enumerate(tools, start=1):
        if not _is_definition(tool):
            return (
                f'{name}: number {number} must be {{"type": "function", "function": …}} with a '
                "name, and with texts and objects where OpenAI's API has them"
            )
    names = [tool["function"]["name"] for tool in tools]
    if len(set(names)) < len(names):
        return f"{name}: two tools have the same name"
    try:
        size = len(json.dumps(tools, ensure_ascii=False))
    except RecursionError:
        size = TOOLS_CHARACTERS + 1
    return f"{name} is too long or nested too deeply" if size > TOOLS_CHARACTERS else None


def _is_definition(tool: object) -> bool:
    return (
        isinstance(tool, dict)
        and set(tool) == {"type", "function"}
        and tool["type"] == "function"
        and isinstance(function := tool["function"], dict)
        and isinstance(function.get("name"), str)
        and function["name"] != ""
        and isinstance(function.get("description") or "", str)
        and isinstance(function.get("parameters") or {}, dict)
    )


def _are_calls(calls: object) -> bool:
    return isinstance(calls, list) and all(
        isinstance(call, dict)
        and isinstance(call.get("id"), str)
        and isinstance(function := call.get("function"), dict)
        and isinstance(function.get("name"), str)
        and isinstance(function.get("arguments"), str)
        for call in calls
    )
