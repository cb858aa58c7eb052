"""Examples: a completion with people's verdict. Read from JSONL, with all faults reported at once.

The format is TRL's unpaired preference form (`prompt` and `completion` as messages, `label`, and
`tools` where the conversation has definitions of tools) plus `id`, `weight`, the token ids that
were served and how the completion ended.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trainer.config import number_fault
from trainer.data.messages import Message, Tools, message_faults, messages_of, tools_fault
from trainer.errors import Refused

_MOST_FAULTS = 20
_FIELDS = {
    "id",
    "prompt",
    "tools",
    "completion",
    "label",
    "weight",
    "prompt_token_ids",
    "completion_token_ids",
    "finish_reason",
}


@dataclass(frozen=True)
class Example:
    """One completion with its verdict; `label` is true for desirable.

    The token ids are those the engine served, None where they are unknown. `completion_token_ids`
    holds the EOS token exactly when `finish_reason` is "stop".
    """

    id: str
    prompt: tuple[Message, ...]
    completion: str
    label: bool
    weight: float = 1.0
    prompt_token_ids: tuple[int, ...] | None = None
    completion_token_ids: tuple[int, ...] | None = None
    finish_reason: str | None = None
    tools: Tools = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form of this example."""
        raw = asdict(self)
        raw["prompt"] = [message.as_dict() for message in self.prompt]
        raw["completion"] = [{"role": "assistant", "content": self.completion}]
        tools = list(raw.pop("tools"))
        return raw | ({"tools": tools} if tools else {})


def read_examples(path: Path) -> list[Example]:
    """Read a JSONL file of examples. Raises Refused with the first 20 faults and their lines."""
    examples, faults = [], []
    seen: set[str] = set()
    for number, raw in numbered_objects(path):
        found = _faults(raw) if isinstance(raw, dict) else [str(raw)]
        if not found and raw["id"] in seen:
            found = [f"id {raw['id']!r} occurs twice"]
        faults += [f"{path.name} line {number}: {fault}" for fault in found]
        if not found:
            seen.add(raw["id"])
            examples.append(_example(raw))
    refuse_if_faulty(faults)
    return examples


def write_examples(path: Path, examples: Iterable[Example]) -> None:
    """Write examples as JSONL, one a line, in their order."""
    with path.open("w", encoding="utf-8") as file:
        for example in examples:
            file.write(json.dumps(example.as_dict(), ensure_ascii=False) + "\n")


def numbered_objects(path: Path) -> Iterable[tuple[int, Any]]:
    """Return (line number, parsed object or text of the fault) of each line of a JSONL file that is
    not blank. Raises Refused when the file is missing."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise Refused(f"{path.name} is missing in {path.parent}") from None
    with file:
        for number, line in enumerate(file, start=1):
            text = line.removeprefix(b"\xef\xbb\xbf").strip() if number == 1 else line.strip()
            if not text:
                continue
            try:
                raw = json.loads(text)
            except (ValueError, RecursionError) as error:
                yield number, f"not valid JSON ({error})"
                continue
            yield number, raw if isinstance(raw, dict) else "not a JSON object"


def refuse_if_faulty(faults: Sequence[str]) -> None:
    """Raise Refused with the first 20 faults and the number of the others."""
    if faults:
        more = len(faults) - _MOST_FAULTS
        raise Refused(*faults[:_MOST_FAULTS], *([f"and {more} more"] if more > 0 else []))


def _example(raw: Mapping[str, Any]) -> Example:
    prompt_ids, completion_ids = raw.get("prompt_token_ids"), raw.get("completion_token_ids")
    return Example(
        id=raw["id"],
        prompt=messages_of(raw["prompt"]),
        completion=raw["completion"][0]["content"],
        label=raw["label"],
        weight=float(raw.get("weight", 1.0)),
        prompt_token_ids=None if prompt_ids is None else tuple(prompt_ids),
        completion_token_ids=None if completion_ids is None else tuple(completion_ids),
        finish_reason=raw.get("finish_reason"),
        tools=tuple(raw.get("tools") or ()),
    )


def _faults(raw: Mapping[str, Any]) -> list[str]:
    faults = [f"unknown field {name!r}" for name in raw if name not in _FIELDS]
    if not isinstance(raw.get("id"), str) or not raw["id"]:
        faults.append("id must be a text")
    if not isinstance(raw.get("label"), bool):
        faults.append("label must be true or false")
    fault = number_fault("weight", raw.get("weight", 1.0), low=0, high=1000, above=True)
    faults += [] if fault is None else [fault]
    faults += message_faults(raw.get("prompt"))
    fault = tools_fault(raw.get("tools"))
    faults += [] if fault is None else [fault]
    for name in ("prompt_token_ids", "completion_token_ids"):
        ids = raw.get(name)
        if ids is not None and not _are_token_ids(ids):
            faults.append(f"{name} must be null or a list of token ids")
    if raw.get("finish_reason") not in (None, "stop", "length"):
        faults.append('finish_reason must be "stop", "length" or null')
    return faults + _completion_faults(raw)


def _completion_faults(raw: Mapping[str, Any]) -> list[str]:
    completion = raw.get("completion")
    if (
        not isinstance(completion, list)
        or len(completion) != 1
        or not isinstance(completion[0], dict)
        or completion[0].get("role") != "assistant"
        or not isinstance(completion[0].get("content"), str)
    ):
        return ["completion must be a list of one assistant message"]
    if not completion[0]["content"].strip():
        return ["the completion is empty: there is nothing to learn from it"]
    return []


def _are_token_ids(ids: object) -> bool:
    return (
        isinstance(ids, list)
        and len(ids) > 0
        and all(
            isinstance(token, int) and not isinstance(token, bool) and token >= 0 for token in ids
        )
    )
