"""KTO examples as files: JSONL and Parquet in TRL's unpaired form, CSV for spreadsheets.

Everything streams: rows are read in chunks of whole queries, so that a slow download holds no
transaction open, and at most one chunk (or one Parquet row group) is in memory.
"""

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from feedback_app.feedback.models import Completion, Project

FORMATS = ("jsonl", "parquet", "csv")
CONTENT_TYPES = {
    "jsonl": "application/x-ndjson",
    "parquet": "application/vnd.apache.parquet",
    "csv": "text/csv; charset=utf-8",
}

CHUNK = 500
#: A Parquet row group ends at so many rows or characters, whichever comes first.
GROUP_ROWS = 1_000
GROUP_CHARACTERS = 8_000_000

COLUMNS = ("prompt", "completion", "label", "weight", "split")
MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
SCHEMA = pa.schema(
    [
        ("prompt", MESSAGES),
        ("completion", MESSAGES),
        ("label", pa.bool_()),
        ("weight", pa.float64()),
        ("split", pa.string()),
    ]
)

#: What a spreadsheet would run: the sign itself, or behind blanks that it trims, or behind
#: apostrophes, so that exactly one can be taken off again when the file is read.
_FORMULA = re.compile(r"'*(?:[\t\r\n]|\s*[=+\-@＝＋－＠])")

Message = dict[str, str]


@dataclass(frozen=True)
class ExportRow:
    """One example; its fields are the columns."""

    prompt: list[Message]
    completion: list[Message]
    label: bool
    weight: float
    split: str


def export_row(completion: Completion, *, label: bool, weight: float, split: str) -> ExportRow:
    """The example of a completion, with the messages that the model saw: the system prompt of
    that day, then the conversation."""
    system = completion.system_prompt
    return ExportRow(
        prompt=[
            *([{"role": "system", "content": system}] if system else []),
            *({"role": m["role"], "content": m["content"]} for m in completion.prompt.messages),
        ],
        completion=[{"role": "assistant", "content": completion.text}],
        label=label,
        weight=weight,
        split=split,
    )


def in_chunks(fetch: Callable[[int], list[Any]], *, key: Callable[[Any], int]) -> Iterator[Any]:
    """All that `fetch(after)` gives, asked again from the key of the last one on."""
    after = 0
    while rows := fetch(after):
        yield from rows
        after = key(rows[-1])


def project_rows(project: Project) -> Iterator[ExportRow]:
    """Every example of the project as it is now, in the order of its completions."""
    examples = project.examples.select_related("completion__prompt").defer(
        "completion__token_ids", "completion__prompt_token_ids"
    )
    for example in in_chunks(
        lambda after: list(examples.filter(pk__gt=after).order_by("pk")[:CHUNK]),
        key=lambda example: example.pk,
    ):
        yield export_row(
            example.completion,
            label=example.desirable,
            weight=example.weight,
            split=example.split,
        )


# -- the formats


def jsonl_lines(rows: Iterable[ExportRow]) -> Iterator[bytes]:
    """One JSON object a line."""
    for row in rows:
        yield json.dumps(asdict(row), ensure_ascii=False).encode() + b"\n"


def neutralised(cell: str) -> str:
    """The cell with an apostrophe before what a spreadsheet would take for a formula."""
    return f"'{cell}" if _FORMULA.match(cell) else cell


def as_written(cell: str) -> str:
    """Undoes `neutralised`: the cell as it was before it went into a CSV file."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def csv_line(cells: Iterable[str]) -> bytes:
    """One CSV record; every cell is quoted, so line breaks stay inside."""
    buffer = io.StringIO()
    csv.writer(buffer, quoting=csv.QUOTE_ALL).writerow([neutralised(cell) for cell in cells])
    return buffer.getvalue().encode()


def csv_lines(rows: Iterable[ExportRow]) -> Iterator[bytes]:
    """A header, then one record an example: the prompt as JSON, the completion as text."""
    yield csv_line(COLUMNS)
    for row in rows:
        yield csv_line(
            (
                json.dumps(row.prompt, ensure_ascii=False),
                row.completion[0]["content"],
                "true" if row.label else "false",
                repr(row.weight),
                row.split,
            )
        )


LINES = {"jsonl": jsonl_lines, "csv": csv_lines}


def parquet_write(rows: Iterable[ExportRow], file: IO[bytes]) -> None:
    """Writes a Parquet file, one row group at a time."""
    with pq.ParquetWriter(file, SCHEMA, compression="zstd") as writer:
        for group in groups(rows):
            writer.write_table(pa.Table.from_pylist([asdict(row) for row in group], schema=SCHEMA))


def groups(rows: Iterable[ExportRow]) -> Iterator[list[ExportRow]]:
    """The rows in lists that are small enough to hold in memory."""
    group: list[ExportRow] = []
    characters = 0
    for row in rows:
        group.append(row)
        characters += sum(len(message["content"]) for message in (*row.prompt, *row.completion))
        if len(group) == GROUP_ROWS or characters >= GROUP_CHARACTERS:
            yield group
            group, characters = [], 0
    if group:
        yield group


def export_write(rows: Iterable[ExportRow], file: IO[bytes], *, as_format: str) -> int:
    """Writes all rows to `file`; returns how many."""
    count = 0

    def counted() -> Iterator[ExportRow]:
        nonlocal count
        for row in rows:
            count += 1
            yield row

    if as_format == "parquet":
        parquet_write(counted(), file)
    else:
        file.writelines(LINES[as_format](counted()))
    return count
