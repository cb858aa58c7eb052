"""Streaming the objects of a JSON array, or of JSON written over several lines.

The file is divided into objects by their brackets, so that memory holds one object, at most MAX_ROW
bytes. What is between two objects is skipped.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import IO

from feedback_app.feedback.imports.readers import (
    MAX_ROW,
    Columns,
    Record,
    Rows,
    Unreadable,
    json_record,
    renamed,
)

PIECE = 1 << 20  # bytes
#: An object of more bytes ends the reading: it may be the rest of a damaged file.
LARGEST = 2 * MAX_ROW
#: What is looked for between objects, inside one, and inside a string.
_BETWEEN = re.compile(rb'[{"]')
_INSIDE = re.compile(rb'[{}\[\]"]')
_STRING = re.compile(rb'["\\]')


class JsonRows(Rows):
    """The objects of an array or a sequence; numbers count them from 1."""

    def __init__(self, file: IO[bytes], columns: Columns) -> None:
        self.file = file
        self.columns = columns
        self.size = max(1, file.seek(0, 2))

    def records(self, *, after: int = 0) -> Iterator[Record]:
        self.file.seek(0)
        number = 0
        for number, (part, cut) in enumerate(objects(self.file), start=1):
            self.share = min(1.0, self.file.tell() / self.size)
            if number > after:
                record = json_record(number, part, cut=cut)
                if self.columns:
                    record = replace(record, value=renamed(record.value, self.columns))
                yield record
        if not number:
            raise Unreadable("The file holds no JSON object: an array of objects is read.")


class _Scan:
    """The scanner's state between two pieces of the file."""

    def __init__(self) -> None:
        self.depth = 0  # of brackets inside the current object
        self.text = False  # inside a string
        self.escaped = False  # the next byte is escaped
        self.object = bytearray()
        self.length = 0

    def take(self, part: bytes) -> None:
        """Add bytes of the current object; beyond MAX_ROW only their number is kept."""
        self.length += len(part)
        if self.length > LARGEST:
            raise Unreadable(
                f"An object of more than {LARGEST // 10**6} MB, or one that never ends. "
                "The objects before it were read."
            )
        self.object += part[: max(0, MAX_ROW - len(self.object))]

    def end(self) -> tuple[bytes, bool]:
        found = bytes(self.object), self.length > MAX_ROW
        self.object, self.length = bytearray(), 0
        return found

    def step(self, byte: bytes) -> bool:
        """Take a mark; return whether it ends an object."""
        if self.text:
            self.escaped = byte == b"\\"
            self.text = self.escaped
        elif byte == b'"':
            self.text = True
        elif byte in b"{[":
            self.depth += 1
        else:
            self.depth -= 1
            return self.depth == 0
        return False

    @property
    def marks(self) -> re.Pattern[bytes]:
        return _STRING if self.text else _INSIDE if self.depth else _BETWEEN


def objects(file: IO[bytes]) -> Iterator[tuple[bytes, bool]]:
    """Yield each object of the outermost level as (bytes, whether it was cut at MAX_ROW).

    An object that the file ends in is yielded as it is. Raise Unreadable for one beyond LARGEST.
    """
    scan = _Scan()
    while piece := file.read(PIECE):
        yield from _objects_of(piece, scan)
    if scan.length:
        yield scan.end()


def _objects_of(piece: bytes, scan: _Scan) -> Iterator[tuple[bytes, bool]]:
    start = 0 if scan.depth else -1  # where the current object begins in this piece
    at = 0
    while at < len(piece):
        if scan.escaped:
            scan.escaped = False
            at += 1
            continue
        mark = scan.marks.search(piece, at)
        if mark is None:
            break
        at = mark.end()
        if scan.depth == 0 and not scan.text and mark.group() == b"{":
            start = mark.start()
        if scan.step(mark.group()):
            scan.take(piece[start:at])
            start = -1
            yield scan.end()
    if start >= 0:
        scan.take(piece[start:])
