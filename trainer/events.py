"""events.jsonl: what a run tells whoever watches it, one JSON object a line.

A run that is resumed from a checkpoint writes the steps after it again: of two `step` events with
the same number the later one counts.
"""

import json
import math
import time
from pathlib import Path
from types import TracebackType
from typing import Self


class EventLog:
    """Appends events; each line reaches the file before `write` returns."""

    def __init__(self, path: Path) -> None:
        # A process that was killed may have left half a line; it must not swallow the next event.
        torn = path.exists() and path.stat().st_size > 0 and path.read_bytes()[-1:] != b"\n"
        self._path = path
        self._file = path.open("a", encoding="utf-8")
        if torn:
            self._file.write("\n")

    def write(self, kind: str, **values: object) -> None:
        """Append one event; numbers that JSON cannot hold (NaN, ∞) become null."""
        record = {"type": kind, "time": round(time.time(), 3), **values}
        self._file.write(json.dumps({key: _finite(value) for key, value in record.items()}) + "\n")
        self._file.flush()

    def write_once(self, kind: str, **values: object) -> None:
        """Append an event unless the file holds a whole one of its kind: a process that was killed
        may have done its work and not said so, or said it in half a line."""
        lines = self._path.read_text(encoding="utf-8").splitlines()
        if not any(_kind(line) == kind for line in lines if kind in line):
            self.write(kind, **values)

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


def _finite(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _kind(line: str) -> object:
    """The type of an event; None where the line is no whole event."""
    try:
        return json.loads(line).get("type")
    except ValueError:
        return None
