"""What the formats share: thumbs, texts and conversations of a message tree."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from feedback_app.feedback.imports.turns import NOT_TEXT

#: Verdicts as the products write them, in lower case.
UP = frozenset(
    "up thumbsup thumbs_up thumbs-up thumbup like liked good positive helpful yes true 👍".split()
)
DOWN = frozenset(
    "down thumbsdown thumbs_down thumbs-down thumbdown dislike disliked bad negative unhelpful no "
    "false 👎".split()
)
#: Names under which an answer or a question is found in an object.
ANSWERS = ("completion", "response", "answer", "output", "generation", "reply")
QUESTIONS = ("prompt", "messages", "instruction", "question", "input", "query", "text")
DEEPEST = 500  # messages from one to the first of its conversation


@dataclass(frozen=True)
class Thumb:
    """One vote of another product: the conversation up to the answer, the answer, and what the
    product calls the verdict."""

    prompt: object
    answer: str
    verdict: object


class NotImportable(Exception):
    """A row of a known format that has no vote to import; the message is the reason."""


def word_of(value: object) -> str:
    """Return a verdict as 'up' or 'down', else as it is: the file's own labels may name it."""
    if isinstance(value, bool):
        return "up" if value else "down"
    if isinstance(value, int | float):
        if value in (1, 0, -1):
            return "up" if value == 1 else "down"
        # an integer of JSON may be too large for a float
        return f"{value:g}" if isinstance(value, float) else str(value)
    said = str(value).strip().lower()
    if said in UP | {"1", "1.0", "+1"}:
        return "up"
    return "down" if said in DOWN | {"0", "0.0", "-1", "-1.0"} else said


def is_thumb(value: object) -> bool:
    """Return whether a value is a verdict without knowing the file's labels."""
    return value is not None and word_of(value) in ("up", "down")


def text_of(value: object) -> str:
    """Return the text of a message's content: text, or a list of parts of which text is kept."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "\n".join(text for part in value if (text := part_text(part)))
    return ""


def part_text(part: object) -> str:
    """Return the text of one part of a content; empty for tools and thoughts. Raise
    NotImportable for an image and other things that are no text: without it the answer would be
    judged by something else."""
    if isinstance(part, str):
        return part
    if isinstance(part, dict) and part.get("type") in NOT_TEXT:
        raise NotImportable(f"a message has content of the kind {part['type']}, which is no text")
    if not isinstance(part, dict) or part.get("type", "text") != "text":
        return ""
    text = part.get("text")
    if isinstance(text, dict):  # {"text": {"value": …}}
        text = text.get("value")
    return text if isinstance(text, str) else ""


def message(role: str, content: object) -> dict[str, str]:
    return {"role": role, "content": text_of(content)}


def path_to(
    last: Mapping[str, Any], by_id: Mapping[str, Mapping[str, Any]], *, parent: str
) -> Iterator[Mapping[str, Any]]:
    """Yield the messages of a tree that lead to `last`, the first one first, without `last`.

    `parent` is the field with the id of the message before.
    """
    found: list[Mapping[str, Any]] = []
    seen = {id(last)}
    at: Mapping[str, Any] | None = last
    while at is not None and len(found) <= DEEPEST:
        before = by_id.get(str(at.get(parent)))
        if before is None or id(before) in seen:
            break
        seen.add(id(before))
        found.append(before)
        at = before
    yield from reversed(found)


def objects_of(value: object) -> list[dict[str, Any]]:
    """Return the objects in a list; empty for anything else."""
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
