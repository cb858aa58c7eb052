"""Prompts of a project; each conversation is stored once."""

import hashlib
import hmac
import json
from collections.abc import Iterable, Sequence
from typing import Any, NotRequired, TypedDict

from django.db import transaction

from feedback_app.feedback.models import (
    Project,
    Prompt,
    Source,
    Split,
)
from feedback_app.feedback.prompts.tools import tools_kept
from feedback_app.web.errors import UserError

ROLES = ("user", "assistant", "tool")
MOST_CALLS = 64  # of tools in one message


class Message(TypedDict):
    """One message of a conversation, as OpenAI's API has it. An answer may call tools: `arguments`
    is JSON as text. A result of the role `tool` names its call. Definitions of tools are with the
    first message (tools.py)."""

    role: str
    content: str
    tool_calls: NotRequired[list[dict[str, Any]]]
    tool_call_id: NotRequired[str]
    tools: NotRequired[str]


def message_new(
    role: str, content: str, *, tool_calls: Any = None, tool_call_id: str | None = None
) -> Message:
    """Return a message without the fields that most lack."""
    message: Message = {"role": role, "content": content}
    if tool_calls:
        message["tool_calls"] = tool_calls
    if tool_call_id:
        message["tool_call_id"] = tool_call_id
    return message


def content_hash(messages: Sequence[Message]) -> str:
    """Return the SHA-256 of a conversation's canonical form, definitions of tools included."""
    parts: list[list[Any]] = [[m["role"], m["content"]] for m in messages]
    for part, message in zip(parts, messages, strict=True):
        tools = [message.get("tool_calls"), message.get("tool_call_id")]
        if any(tools):
            part += tools
    if kept := tools_kept(messages):
        parts.append(["tools", kept])
    canonical = json.dumps(parts, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def split_of(digest: str, *, project: Project) -> Split:
    """Return the split of a new prompt, decided by its content hash and the project's key.

    Without the key anyone could try prompts until one is in the split that they want. The test
    split comes first, so that a change of `validation_percent` moves no place into or out of it.
    """
    drawn = hmac.new(project.split_key.encode(), digest.encode(), hashlib.sha256).digest()
    place = int.from_bytes(drawn[:8], "big") % 100
    if place < project.test_percent:
        return Split.TEST
    if place < project.test_percent + project.validation_percent:
        return Split.VALIDATION
    return Split.TRAIN


def messages_check(messages: Sequence[Message]) -> None:
    """Raise UserError with every error that makes the messages no valid prompt."""
    faults = []
    if not messages:
        faults.append("a prompt needs at least one message")
    called: set[str] = set()
    for number, message in enumerate(messages, start=1):
        faults += message_faults(message, called=called, number=number)
    if messages and messages[-1].get("role") not in ("user", "tool"):
        faults.append("the last message must be the user's, or a tool's result")
    if any("tools" in message for message in messages[1:]):
        faults.append("definitions of tools belong to the first message")
    if faults:
        raise UserError("; ".join(faults))


def message_faults(message: Message, *, called: set[str], number: int) -> list[str]:
    """Return what is wrong with a message; `called` gets the ids of its calls of tools."""
    role, content = message.get("role"), message.get("content")
    faults = [] if role in ROLES else [f"message {number} has the role {role!r}"]
    calls = message.get("tool_calls")
    if calls and (role != "assistant" or not calls_are_valid(calls)):
        faults.append(
            f"message {number} has tool_calls that are not an assistant's calls of functions, each "
            "with an id, a name and arguments"
        )
    elif calls:
        called.update(call["id"] for call in calls)
    elif not isinstance(content, str) or not content.strip():
        faults.append(f"message {number} is empty")
    if role == "tool" and message.get("tool_call_id") not in called:
        faults.append(f"message {number} is a tool's result without the call before it")
    return faults


def calls_are_valid(calls: object) -> bool:
    """Return whether calls of tools have the form that chat templates read."""
    return (
        isinstance(calls, list)
        and len(calls) <= MOST_CALLS
        and all(
            isinstance(call, dict)
            and set(call) == {"id", "type", "function"}
            and isinstance(call["id"], str)
            and isinstance(call["function"], dict)
            and isinstance(call["function"].get("name"), str)
            and isinstance(call["function"].get("arguments"), str)
            for call in calls
        )
    )


def prompt_get_or_create(
    *, project: Project, messages: Sequence[Message], source: Source, topic: str = ""
) -> Prompt:
    """Return the project's prompt with these messages, created if missing."""
    messages_check(messages)
    digest = content_hash(messages)
    prompt, _ = Prompt.objects.get_or_create(
        project=project,
        content_hash=digest,
        defaults={
            "messages": list(messages),
            "topic": topic,
            "source": source,
            "split": split_of(digest, project=project),
        },
    )
    return prompt


def prompts_add(
    *, project: Project, prompts: Iterable[tuple[str, Sequence[Message]]], source: Source
) -> int:
    """Add (topic, messages) pairs; return how many are new."""
    before = project.prompts.count()
    with transaction.atomic():
        for topic, messages in prompts:
            prompt_get_or_create(project=project, messages=messages, source=source, topic=topic)
    return project.prompts.count() - before
