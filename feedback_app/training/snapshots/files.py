"""The JSONL files of a snapshot, which the trainer (and TRL) read."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.db.models import QuerySet

from feedback_app.feedback.exports.rows import in_chunks
from feedback_app.feedback.models import Completion, Example, Project, Split
from feedback_app.feedback.prompts.tools import tools_fields, without_tools
from feedback_app.training.models import Snapshot, SnapshotItem

#: The files of a run's directory by what their examples are for.
SPLIT_FILES = {Split.TRAIN: "examples.jsonl", Split.VALIDATION: "validation.jsonl"}


def context(completion: Completion) -> list[dict[str, Any]]:
    """Return the messages of the model's input: its system prompt, then the conversation."""
    system = completion.system_prompt
    head = [{"role": "system", "content": system}] if system else []
    return [*head, *completion.prompt.messages]


def as_line(item: SnapshotItem) -> dict[str, Any]:
    """Return an example in TRL's unpaired format, plus weight and served token ids; `tools` only
    where there are some."""
    completion = item.completion
    messages = context(completion)
    return {
        "id": str(completion.pk),
        "prompt": without_tools(messages),
        **tools_fields(messages),
        "completion": [{"role": "assistant", "content": completion.text}],
        "label": item.desirable,
        "weight": item.weight,
        "prompt_token_ids": completion.prompt_token_ids,
        "completion_token_ids": completion.token_ids,
        # an aborted stream has no EOS, like one cut at the limit
        "finish_reason": "stop" if completion.finish_reason == "stop" else "length",
    }


def items_of(snapshot: Snapshot, split: Split) -> Iterator[SnapshotItem]:
    """Yield items in a fixed order: the same snapshot gives the same bytes."""
    return (
        snapshot.items.filter(split=split)
        .select_related("completion__prompt")
        .order_by("completion_id")
        .iterator(chunk_size=500)
    )


def examples_write(project: Project, split: Split, path: Path) -> None:
    """Write a split of the project's examples as they are now, atomically."""
    some_examples_write(project.examples.filter(split=split), path)


def some_examples_write(examples: QuerySet[Example], path: Path) -> None:
    """Write examples as they are now, atomically."""
    partial = path.with_name(f"{path.name}.partial")
    with partial.open("wb") as file:
        for example in in_chunks(examples.select_related("completion__prompt")):
            values = {"desirable": example.desirable, "weight": example.weight}
            item = SnapshotItem(completion=example.completion, **values)
            file.write(json.dumps(as_line(item), ensure_ascii=False).encode() + b"\n")
    partial.replace(path)


def snapshot_write(snapshot: Snapshot, directory: Path) -> None:
    """Write what training reads, examples.jsonl and validation.jsonl, and store the hash of the
    first.

    The test split is not written here: gate/evaluation.py does it when training is done.
    """
    directory.mkdir(parents=True, exist_ok=True)
    split_write(snapshot, Split.VALIDATION, directory / SPLIT_FILES[Split.VALIDATION])
    digest = split_write(snapshot, Split.TRAIN, directory / SPLIT_FILES[Split.TRAIN])
    if snapshot.sha256 != digest:
        snapshot.sha256 = digest
        snapshot.save(update_fields=["sha256"])


def split_write(snapshot: Snapshot, split: Split, path: Path) -> str:
    """Write the examples of a split atomically; return the SHA-256 of the file."""
    hasher = hashlib.sha256()
    partial = path.with_name(f"{path.name}.partial")
    with partial.open("wb") as file:
        for item in items_of(snapshot, split):
            line = json.dumps(as_line(item), ensure_ascii=False).encode() + b"\n"
            hasher.update(line)
            file.write(line)
    partial.replace(path)
    return hasher.hexdigest()
