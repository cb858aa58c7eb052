"""Streaming rows of a Parquet file, which a child process with limited memory reads."""

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from feedback_app.feedback.imports.readers import (
    KNOWN,
    MAX_ROW,
    Columns,
    Record,
    Rows,
    Unreadable,
    cleaned,
    columns_check,
    renamed,
)

BATCH = 64  # rows that the child decodes at once
BATCH_OF_ALL = 8  # the same where all columns are read, as some may hold images
PROGRAM = Path(__file__).with_name("parquet_child.py")
#: Children of this process at the same time, each with up to 512 MB; others wait.
_CHILDREN = threading.BoundedSemaphore(4)


class Child:
    """A process that reads the file; it speaks the protocol of parquet_child.py."""

    def __init__(self, file: IO[bytes]) -> None:
        file.seek(0)
        _CHILDREN.acquire()
        self._open = True
        try:
            self._process = subprocess.Popen(
                # isolated: neither the directory nor variables of this process add modules
                [sys.executable, "-I", str(PROGRAM), str(file.fileno())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                pass_fds=[file.fileno()],
                # the default pool reserves more address space than the limit allows
                env={**os.environ, "ARROW_DEFAULT_MEMORY_POOL": "system"},
            )
        except BaseException:
            _CHILDREN.release()
            raise
        if self._process.stdin is None or self._process.stdout is None:  # both are pipes
            raise AssertionError
        self._requests, self._answers = self._process.stdin, self._process.stdout

    def ask(self, request: bytes) -> None:
        """Send a line."""
        with contextlib.suppress(BrokenPipeError):  # it ended, and so do its lines
            self._requests.write(request)
            self._requests.close()

    def lines(self) -> Iterator[bytes]:
        """Yield the lines that were not read yet."""
        while line := self._answers.readline(MAX_ROW + 1_000):
            yield line

    def close(self) -> None:
        """End the process, whatever it is doing."""
        if self._open:
            self._open = False
            self._process.kill()
            with self._process:  # closes the pipes and waits
                pass
            _CHILDREN.release()


class ParquetRows(Rows):
    """Reads row groups in small batches, and only columns that a shape uses."""

    def __init__(self, file: IO[bytes], columns: Columns, *, every: bool = False) -> None:
        self.child = Child(file)
        self.columns = columns
        self.batch = BATCH_OF_ALL if every else BATCH
        try:
            head = self.answer(next(self.child.lines(), b""), number=0)
            names: list[str] = head["names"]
            self.total = max(1, head["rows"])
            used = KNOWN | set(columns.values())
            if every:
                used = used.union(names)
            else:
                columns_check(columns, names)
        except BaseException:
            self.child.close()
            raise
        self.used = [name for name in names if name in used]

    def records(self, *, after: int = 0) -> Iterator[Record]:
        request = {"columns": self.used, "after": after, "batch": self.batch}
        number = after
        try:
            self.child.ask(json.dumps(request).encode() + b"\n")
            for each in self.child.lines():
                answer = self.answer(each, number=number)
                if isinstance(answer, dict):  # the end
                    return
                number, value, fault = answer
                self.share = min(1.0, number / self.total)
                yield Record(number, renamed(value or {}, self.columns), fault)
            self.answer(b"", number=number)
        finally:
            self.child.close()

    def answer(self, line: bytes, *, number: int) -> Any:
        """Return the value of a line. Raise Unreadable for an error, or if the child ended."""
        try:
            found = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise Unreadable(
                f"The file cannot be read after row {number}: it is damaged, or reading it takes "
                "more than 512 MB of memory. Write it again with smaller values."
            ) from error
        if isinstance(found, dict) and "error" in found:
            raise Unreadable(cleaned(found["error"]))
        return found
