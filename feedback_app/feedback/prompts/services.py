"""Prompts of a project; each conversation is stored once."""

import hashlib
import hmac
import json
from collections.abc import Iterable, Sequence
from typing import TypedDict

from django.db import transaction

from feedback_app.feedback.models import (
    Project,
    Prompt,
    Source,
    Split,
)
from feedback_app.web.errors import UserError

ROLES = ("user", "assistant")


class Message(TypedDict):
    """One message of a conversation."""

    role: str
    content: str


def content_hash(messages: Sequence[Message]) -> str:
    """Return the SHA-256 of a conversation's canonical form."""
    canonical = json.dumps(
        [[m["role"], m["content"]] for m in messages], ensure_ascii=False, separators=(",", ":")
    )
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
    for index, message in enumerate(messages):
        if message.get("role") not in ROLES:
            faults.append(f"message {index + 1} has the role {message.get('role')!r}")
        content = message.get("content")
        if not isinstance(content, str) or not content.strip():
            faults.append(f"message {index + 1} is empty")
    if messages and messages[-1].get("role") != "user":
        faults.append("the last message must be the user's")
    if faults:
        raise UserError("; ".join(faults))


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
