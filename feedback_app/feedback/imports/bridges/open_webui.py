"""Open WebUI: the export of feedback, one object per thumb with a snapshot of its chat."""

from collections.abc import Mapping
from typing import Any

from feedback_app.feedback.imports.bridges.thumbs import (
    NotImportable,
    Thumb,
    message,
    objects_of,
    path_to,
    text_of,
)

NAME = "Open WebUI feedback"


def thumbs(row: Mapping[str, Any]) -> list[Thumb] | None:
    """Return the row's vote, or None if it is no feedback. Raise NotImportable."""
    data, meta, snapshot = row.get("data"), row.get("meta"), row.get("snapshot")
    if not isinstance(data, dict) or "rating" not in data or "type" not in row:
        return None
    if not isinstance(snapshot, dict) or not isinstance(meta, dict):
        raise NotImportable("the feedback has no snapshot of its chat: export it as an admin")
    chat = snapshot.get("chat")
    while isinstance(chat, dict) and isinstance(chat.get("chat"), dict):
        chat = chat["chat"]
    if not isinstance(chat, dict):
        raise NotImportable("the snapshot has no chat")
    rated = str(meta.get("message_id"))
    by_id = messages_by_id(chat)
    answer = by_id.get(rated)
    if answer is None:
        raise NotImportable("the rated message is not in the chat")
    before = [
        message(str(each.get("role")), each.get("content"))
        for each in path_to(answer, by_id, parent="parentId")
        if each.get("role") in ("system", "user", "assistant") and without_images(each)
    ]
    system = system_of(chat)
    head = [message("system", system)] if system else []
    return [Thumb(head + before, text_of(answer.get("content")), data["rating"])]


def without_images(each: Mapping[str, Any]) -> bool:
    """Return True. Raise NotImportable for a message with an image beside its text."""
    if any(file.get("type") == "image" for file in objects_of(each.get("files"))):
        raise NotImportable("a message has an image, which is no text")
    return True


def messages_by_id(chat: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the chat's messages by id: of its tree, or else of its list."""
    history = chat.get("history")
    tree = history.get("messages") if isinstance(history, dict) else None
    if isinstance(tree, dict):
        return {str(key): value for key, value in tree.items() if isinstance(value, dict)}
    return {str(each.get("id")): each for each in objects_of(chat.get("messages"))}


def system_of(chat: Mapping[str, Any]) -> str:
    """Return the chat's own system prompt."""
    params = chat.get("params")
    for value in (params.get("system") if isinstance(params, dict) else None, chat.get("system")):
        if isinstance(value, str) and value:
            return value
    return ""
