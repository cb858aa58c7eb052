"""events.jsonl: the events of a run, one JSON object a line.

A run that is resumed from a checkpoint writes the steps after it again: of two `step` events with
the same number the later one counts.
"""

import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self


class Listener(Protocol):
    """Gets events after they are written. It raises nothing."""

    def event(self, kind: str, values: Mapping[str, object]) -> None: ...

    def close(self) -> None: ...


class EventLog:
    """Appends events; each line reaches the file before `write` returns. Raises OSError."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # Unbuffered: what a full disk refused must not be written when the file is closed.
        self._file = path.open("a+b", buffering=0)
        # set by a caller that logs the same id, so that one search finds all of a run
        request_id = os.environ.get("PROSPECT_REQUEST_ID", "")
        self._context = {"request_id": request_id} if request_id else {}
        self._listener: Listener | None = None

    def listen(self, listener: "Listener") -> None:
        """Pass events on to a listener as well, once they are written; it is closed first."""
        self._listener = listener

    def write(self, kind: str, **values: object) -> None:
        """Append one event; numbers that JSON cannot hold (NaN, ∞) become null."""
        record = {"type": kind, "time": round(time.time(), 3), **self._context, **values}
        line = json.dumps({key: _finite(value) for key, value in record.items()}) + "\n"
        left = ("\n" if self._is_torn() else "").encode() + line.encode()
        while left:
            left = left[self._file.write(left) :]
        if self._listener is not None:
            self._listener.event(kind, values)

    def _is_torn(self) -> bool:
        """Return whether the last line is incomplete: the process was killed, or the disk was full.
        The next event must start on a new line."""
        size = os.fstat(self._file.fileno()).st_size
        return size > 0 and os.pread(self._file.fileno(), 1, size - 1) != b"\n"

    def write_once(self, kind: str, **values: object) -> None:
        """Append an event unless the file holds a complete one of its kind: a killed process may
        have finished without writing it, or written half a line."""
        lines = self._path.read_text(encoding="utf-8").splitlines()
        if not any(_kind(line) == kind for line in lines if kind in line):
            self.write(kind, **values)

    def close(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()
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
    """Return the type of an event; None where the line is incomplete."""
    try:
        return json.loads(line).get("type")
    except ValueError:
        return None
