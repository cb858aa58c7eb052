"""log π₀(y|x) of the frozen reference, computed once a (prompt, completion) pair and kept on disk.

The reference is the base model with the adapter switched off: it never changes, so a value holds
for every epoch, every resume and, with one cache file for several runs, for every run on the same
base. The file is JSON lines: a header that names what the values belong to, then one pair a line.
"""

import hashlib
import json
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from trainer.batches import micro_batches
from trainer.logprobs import Row, sequence_logprobs


class ReferenceCache:
    """Reference log-probabilities by pair; `fingerprint` names base model, type and device kind."""

    def __init__(self, path: Path, *, fingerprint: str) -> None:
        self._path = path
        self._values: dict[str, float] = {}
        header = {"fingerprint": fingerprint}
        if not self._read(header):
            path.write_text(json.dumps(header) + "\n", encoding="utf-8")
            self._values.clear()

    def logprobs(
        self,
        model: Any,
        rows: Sequence[Row],
        *,
        token_budget: int,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> list[float]:
        """log π₀(y|x) of each row in nats; only groups with an unknown row cost a forward pass.

        `model` must run as the reference (adapter off). A group is computed as a whole even where
        some of its rows are known: rounding depends on the group, and a run that was interrupted
        here must end with the same numbers as one that was not.
        """
        keys = [pair_key(row) for row in rows]
        groups = micro_batches([len(prompt) + len(answer) for prompt, answer in rows], token_budget)
        done = 0
        for group in groups:
            if any(keys[position] not in self._values for position in group):
                with torch.no_grad():
                    values = sequence_logprobs(model, [rows[position] for position in group])
                self._add(
                    {
                        keys[position]: value
                        for position, value in zip(group, values.tolist(), strict=True)
                    }
                )
            done += len(group)
            if on_progress is not None:
                on_progress(done, len(rows))
        return [self._values[key] for key in keys]

    def _add(self, found: dict[str, float]) -> None:
        # The first value stays: a resumed run must not see what a later step computed.
        new = {key: value for key, value in found.items() if key not in self._values}
        self._values.update(new)
        with self._path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps([key, value]) + "\n" for key, value in new.items())

    def _read(self, header: dict[str, str]) -> bool:
        """Load the file; False when there is none for this header. A line that a crash cut off is
        dropped together with what follows it."""
        if not self._path.exists():
            return False
        lines = self._path.read_bytes().splitlines(keepends=True)
        good = 0
        try:
            if not lines or json.loads(lines[0]) != header:
                return False
            good = len(lines[0])
            for line in lines[1:]:
                key, value = json.loads(line)
                if not line.endswith(b"\n"):
                    break
                self._values[key] = value
                good += len(line)
        except ValueError:
            pass
        if good < self._path.stat().st_size:
            with self._path.open("r+b") as file:
                file.truncate(good)
        return good > 0


def pair_key(row: Row) -> str:
    """The pair's key: a hash of both lists of token ids and of where one ends."""
    prompt, completion = row
    packed = array("q", [len(prompt), *prompt, *completion]).tobytes()
    return hashlib.sha256(packed).hexdigest()[:32]
