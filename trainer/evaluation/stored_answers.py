"""answers.jsonl: the answers of an evaluation that are finished, one JSON object a line, so that an
evaluation that was killed, or is asked for more answers, samples only what is missing."""

import json
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from trainer.evaluation.generate import Answer

Kind = Literal["answer", "kl", "probe"]


@dataclass(frozen=True)
class Place:
    """Which answer: number `index` of a version to a prompt. `kind` is "kl" for those that the KL
    estimate is made on, which are sampled in another way, and "probe" for those to probes."""

    version: str
    kind: Kind
    prompt_id: str
    index: int


class StoredAnswers:
    """The answers of one file. Each has a `key`, a hash of everything that it depends on (weights,
    prompt, sampling settings): only an answer with the same key is returned.

    A line that is damaged is ignored, and an incomplete last line (the process was killed, the
    disk was full) is removed. Of two lines for one place the later one counts. Raises OSError.
    """

    def __init__(self, path: Path) -> None:
        # Unbuffered: a finished answer is in the file whatever happens to the process afterwards.
        self._file = path.open("a+b", buffering=0)
        self._file.seek(0)
        content = self._file.read()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            self._file.truncate(len(whole))
        self._known: dict[Place, tuple[str, Answer]] = {}
        for line in whole.splitlines():
            found = _parsed(line)
            if found is not None:
                place, key, answer = found
                self._known[place] = key, answer

    def find(self, place: Place, key: str) -> Answer | None:
        """Return the answer at `place` if it was sampled under `key`."""
        known, answer = self._known.get(place, ("", None))
        return answer if known == key else None

    def add(self, place: Place, key: str, answer: Answer) -> None:
        """Store a finished answer; it is in the file when this returns."""
        self._known[place] = key, answer
        record = {
            "version": place.version,
            "kind": place.kind,
            "id": place.prompt_id,
            "index": place.index,
            "key": key,
            "prompt_ids": answer.prompt_ids,
            "token_ids": answer.token_ids,
            "text": answer.text,
            "finish_reason": answer.finish_reason,
        }
        left = (json.dumps(record) + "\n").encode()
        while left:
            left = left[self._file.write(left) :]

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _parsed(line: bytes) -> tuple[Place, str, Answer] | None:
    """Return the place, key and answer of a line, None where it is damaged."""
    try:
        raw = json.loads(line)
        place = Place(raw["version"], raw["kind"], raw["id"], raw["index"])
        prompt, tokens = _ids(raw["prompt_ids"]), _ids(raw["token_ids"])
        answer = Answer(prompt, tokens, raw["text"], raw["finish_reason"])
        key = raw["key"]
        hash(place)
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    whole = isinstance(key, str) and isinstance(answer.text, str) and bool(tokens)
    return (place, key, answer) if whole and answer.finish_reason in ("stop", "length") else None


def _ids(raw: Any) -> tuple[int, ...]:
    if not isinstance(raw, list) or not all(type(token) is int and token >= 0 for token in raw):
        raise ValueError("no list of token ids")
    return tuple(raw)
