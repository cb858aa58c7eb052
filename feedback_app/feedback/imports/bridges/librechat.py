"""LibreChat: an exported conversation, or messages of its database grouped by conversation."""

from collections.abc import Iterator, Mapping
from typing import Any

from feedback_app.feedback.imports.bridges.thumbs import (
    NotImportable,
    Thumb,
    message,
    objects_of,
    path_to,
    text_of,
)

NAME = "LibreChat conversation"
#: Messages of all votes of a conversation together, which repeat what is before each.
LONGEST = 100_000


def thumbs(row: Mapping[str, Any]) -> list[Thumb] | None:
    """Return the votes of a conversation, or None if the row is none. Raise NotImportable."""
    if "feedback" in row and "messageId" in row:
        raise NotImportable("a message without its conversation: export messages grouped by it")
    tree = row.get("messagesTree", row.get("messages"))
    if "conversationId" not in row or not isinstance(tree, list):
        return None
    messages = list(flat(tree))
    by_id = {str(each.get("messageId")): each for each in messages}
    said = {key: spoken(each) for key, each in by_id.items()}
    found = []
    length = 0
    for each in messages:
        if (rating := rating_of(each)) and not each.get("isCreatedByUser"):
            path = path_to(each, by_id, parent="parentMessageId")
            before = [said[str(one.get("messageId"))] for one in path]
            found.append(Thumb(before, spoken(each)["content"], rating))
            length += len(before)
            if length > LONGEST:
                raise NotImportable("too many thumbs in too long a conversation")
    if not found:
        raise NotImportable("no message of this conversation has a thumb")
    return found


def flat(tree: list[Any]) -> Iterator[dict[str, Any]]:
    """Yield the messages of nested `children`, each after the message that it answers."""
    waiting = objects_of(tree)[::-1]
    while waiting:
        each = waiting.pop()
        yield each
        waiting += objects_of(each.get("children") or [])[::-1]


def rating_of(each: Mapping[str, Any]) -> str:
    feedback = each.get("feedback")
    rating = feedback.get("rating") if isinstance(feedback, dict) else None
    return rating if isinstance(rating, str) else ""


def spoken(each: Mapping[str, Any]) -> dict[str, str]:
    """Return a message: its parts, which newer versions write, or its text."""
    role = "user" if each.get("isCreatedByUser") else "assistant"
    return message(role, text_of(each.get("content")) or each.get("text"))
