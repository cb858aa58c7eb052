"""Rows of files, and those of JSONL and CSV as streams.

Only a file that is unusable as a whole raises an error (`Unreadable`); a bad row is returned with
its fault.
"""

import csv
import json
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import IO, Any

from feedback_app.feedback.exports.rows import as_written

MAX_ROW = 8_000_000  # bytes of a line
MAX_CELL = 4_000_000  # characters of a CSV cell
EXCERPT = 1_000
BOM = b"\xef\xbb\xbf"

#: Columns that any shape uses; others are not read.
KNOWN = frozenset(
    "prompt completion output label chosen rejected messages topic gold tools".split()
)
#: Our field names mapped to the file's: `{"prompt": "question"}`; `{"label": ""}` ignores the
#: file's own `label`.
Columns = Mapping[str, str]
#: CSV cells of these columns may hold messages as JSON.
_CONVERSATIONS = KNOWN - {"label", "topic", "gold", "tools"}

# the only limit on how much of an unclosed quote the csv module buffers; it is process-wide
csv.field_size_limit(MAX_CELL)


class Unreadable(Exception):
    """The file cannot be imported; the message is the reason and what to do."""


@dataclass(frozen=True)
class Record:
    """One row and its number (the line in JSONL, else counted from 1), or its fault."""

    number: int
    value: Mapping[str, Any]
    fault: str = ""
    text: str = ""

    @property
    def excerpt(self) -> str:
        """The start of the row as text that every database can store."""
        text = self.text or json.dumps(self.value, ensure_ascii=False, default=str)
        return cleaned(text[:EXCERPT].rstrip())


def cleaned(text: str) -> str:
    """Return the text without NUL and lone surrogates, which databases reject."""
    return text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()


class Rows(ABC):
    """An open file of rows; `share` is the part that has been read, 0 to 1."""

    share: float = 0.0

    @abstractmethod
    def records(self, *, after: int = 0) -> Iterator[Record]:
        """Return the rows whose number is above `after`."""


def renamed(row: Mapping[str, Any], columns: Columns) -> dict[str, Any]:
    """Return the row under our field names.

    A column with one of our names is dropped if another column is mapped to that field.
    """
    rest = {
        name: value
        for name, value in row.items()
        if name not in columns and name not in columns.values()
    }
    return rest | {
        ours: row[theirs] for ours, theirs in columns.items() if theirs and theirs in row
    }


def columns_check(columns: Columns, names: Collection[str]) -> None:
    """Raise Unreadable if the file lacks a mapped column or has nothing to import."""
    if missing := [theirs for theirs in columns.values() if theirs and theirs not in names]:
        raise Unreadable(f"No column is called {', '.join(missing)}.")
    if not KNOWN & renamed(dict.fromkeys(names), columns).keys():
        raise Unreadable(
            "No column is called prompt, completion, label, chosen, rejected or messages."
        )


# -- text


class Lines:
    """Physical lines of a binary file, at most MAX_ROW bytes.

    The rest of a longer line is skipped and `cut` is set until the next line.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.size = max(1, file.seek(0, 2))
        file.seek(0)
        self.read = 0
        self.cut = False

    @property
    def share(self) -> float:
        return min(1.0, self.read / self.size)

    def __iter__(self) -> Iterator[bytes]:
        first = True
        while line := self.file.readline(MAX_ROW):
            self.read += len(line)
            self.cut = len(line) == MAX_ROW and not line.endswith(b"\n")
            if self.cut:
                while rest := self.file.readline(MAX_ROW):
                    self.read += len(rest)
                    if rest.endswith(b"\n"):
                        break
            yield line.removeprefix(BOM) if first else line
            first = False


class JsonlRows(Rows):
    """One JSON object per line; blank lines are skipped."""

    def __init__(self, file: IO[bytes], columns: Columns) -> None:
        self.lines = Lines(file)
        self.columns = columns

    def records(self, *, after: int = 0) -> Iterator[Record]:
        for number, line in enumerate(self.lines, start=1):
            self.share = self.lines.share
            if number > after and line.strip():
                record = json_record(number, line, cut=self.lines.cut)
                if self.columns:
                    record = replace(record, value=renamed(record.value, self.columns))
                yield record


def json_record(number: int, line: bytes, *, cut: bool) -> Record:
    """Return the row in a line."""
    text = line.decode("utf-8", "replace")
    if cut:
        return Record(number, {}, f"the line is longer than {MAX_ROW // 10**6} MB", text[:EXCERPT])
    try:
        value = json.loads(line.decode())
    except UnicodeDecodeError as error:
        return Record(number, {}, f"not valid UTF-8 at byte {error.start + 1} of the line", text)
    except RecursionError:
        return Record(number, {}, "nested too deeply", text)
    except ValueError as error:
        return Record(number, {}, f"not valid JSON: {error}", text)
    if not isinstance(value, dict):
        return Record(number, {}, "not a JSON object", text)
    return Record(number, value, text=text)


class CsvRows(Rows):
    """Comma, semicolon or tab separated; the first record names the columns."""

    def __init__(self, file: IO[bytes], columns: Columns, *, every: bool = False) -> None:
        self.lines = Lines(file)
        self.every = every
        self.columns = {ours: theirs.strip().lower() for ours, theirs in columns.items()}
        delimiter = most_frequent(file.readline(65_536))
        file.seek(0)
        # invalid UTF-8 becomes lone surrogates, and the row is refused for it
        decoded = (line.decode("utf-8", "surrogateescape") for line in self.lines)
        self.reader = csv.reader(decoded, delimiter=delimiter)

    def records(self, *, after: int = 0) -> Iterator[Record]:
        header = self.header()
        number = 0
        while True:
            number += 1
            fault, cells = "", []
            try:
                cells = next(self.reader)
            except StopIteration:
                return
            except csv.Error as error:
                fault = f"not valid CSV: {error}"
            self.share = self.lines.share
            if number <= after or not (cells or fault):
                continue
            if self.lines.cut:
                fault = f"a line is longer than {MAX_ROW // 10**6} MB"
            elif not fault and len(cells) != len(header):
                fault = f"{len(cells)} cells where the header names {len(header)} columns"
            text = "" if not fault else ",".join(cells)[:EXCERPT]
            named = {} if fault else renamed(dict(zip(header, cells, strict=True)), self.columns)
            value = {
                name: cell_of(name, cell)
                for name, cell in named.items()
                if self.every or name in KNOWN
            }
            yield Record(number, value, fault, text)

    def header(self) -> list[str]:
        """Return the column names in lower case. Raise Unreadable if they are invalid."""
        try:
            names = [name.strip().lower() for name in next(self.reader, [])]
        except csv.Error as error:
            raise Unreadable(f"The first line is not a CSV header: {error}.") from error
        if self.columns:
            columns_check(self.columns, names)
        elif not (is_header(names) if self.every else KNOWN & set(names)):
            raise Unreadable(
                "The file is neither JSONL nor Parquet, and its first line is not a CSV header: "
                "no column is called prompt, completion, label, chosen, rejected or messages."
            )
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            named = cleaned(", ".join(twice))
            raise Unreadable(f"The CSV header names a column twice: {named}.")
        return names


def is_header(names: list[str]) -> bool:
    """Return whether these can be column names: text, and not all empty."""
    return any(names) and all(" ".join(name.split()).isprintable() for name in names)


def most_frequent(header: bytes) -> str:
    """Return the delimiter of a CSV header."""
    return max((",", ";", "\t"), key=lambda mark: header.count(mark.encode()))


def cell_of(column: str, cell: str) -> object:
    """Return the value of a CSV cell: None, messages from JSON, or text."""
    text = as_written(cell)
    if column in _CONVERSATIONS and text.lstrip().startswith("[{"):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            return text
    return text or None
