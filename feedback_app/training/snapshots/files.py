"""Writes a snapshot's rows as the JSONL files that the trainer (and TRL) read."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from feedback_app.feedback.models import Completion, Split
from feedback_app.training.models import Snapshot, SnapshotItem


def context(completion: Completion) -> list[dict[str, str]]:
    """The messages that the model saw: the system prompt of that day, then the conversation."""
    system = completion.system_prompt
    head = [{"role": "system", "content": system}] if system else []
    return [*head, *completion.prompt.messages]


def as_line(item: SnapshotItem) -> dict[str, Any]:
    """One example in TRL's unpaired form, plus weight and the token ids that were served."""
    completion = item.completion
    return {
        "id": str(completion.pk),
        "prompt": context(completion),
        "completion": [{"role": "assistant", "content": completion.text}],
        "label": item.desirable,
        "weight": item.weight,
        "prompt_token_ids": completion.prompt_token_ids,
        "completion_token_ids": completion.token_ids,
        # a stopped stream has no end of its own, like one that was cut
        "finish_reason": "stop" if completion.finish_reason == "stop" else "length",
    }


def items_of(snapshot: Snapshot, split: Split) -> Iterator[SnapshotItem]:
    """In a fixed order: the same snapshot gives the same bytes."""
    return (
        snapshot.items.filter(split=split)
        .select_related("completion__prompt")
        .order_by("completion_id")
        .iterator(chunk_size=500)
    )


def snapshot_write(snapshot: Snapshot, directory: Path) -> None:
    """Writes examples.jsonl and heldout.jsonl, each atomically, and stores the first's hash."""
    directory.mkdir(parents=True, exist_ok=True)
    digest = ""
    for split, name in ((Split.HELDOUT, "heldout.jsonl"), (Split.TRAIN, "examples.jsonl")):
        hasher = hashlib.sha256()
        partial = directory / f"{name}.partial"
        with partial.open("wb") as file:
            for item in items_of(snapshot, split):
                line = json.dumps(as_line(item), ensure_ascii=False).encode() + b"\n"
                hasher.update(line)
                file.write(line)
        partial.replace(directory / name)
        digest = hasher.hexdigest()
    if snapshot.sha256 != digest:
        snapshot.sha256 = digest
        snapshot.save(update_fields=["sha256"])
