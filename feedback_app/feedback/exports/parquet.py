"""Writing export rows as Parquet. Imported only when needed: pyarrow takes 50 MB."""

from collections.abc import Iterable, Iterator
from shutil import copyfileobj
from tempfile import TemporaryFile
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from feedback_app.feedback.exports.rows import OF_TOOLS, VOTES, ExportRow, as_json

#: Maximum rows and characters of a Parquet row group.
GROUP_ROWS = 1_000
GROUP_CHARACTERS = 8_000_000

FIELDS = [("role", pa.string()), ("content", pa.string())]
MESSAGES = pa.list_(pa.struct(FIELDS))
FUNCTION = pa.struct([("name", pa.string()), ("arguments", pa.string())])
CALL = pa.struct([("id", pa.string()), ("type", pa.string()), ("function", FUNCTION)])
MESSAGES_WITH_TOOLS = pa.list_(
    pa.struct([*FIELDS, ("tool_calls", pa.list_(CALL)), ("tool_call_id", pa.string())])
)
SCHEMA = pa.schema(
    [
        ("prompt", MESSAGES),
        ("completion", MESSAGES),
        ("label", pa.bool_()),
        ("weight", pa.float64()),
        ("split", pa.string()),
        # JSON: no two definitions have the same fields
        ("tools", pa.string()),
    ]
)
SCHEMA_WITH_VOTES = SCHEMA.append(
    pa.field(
        VOTES,
        pa.list_(
            pa.struct(
                [
                    ("verdict", pa.string()),
                    ("reasons", pa.list_(pa.string())),
                    ("comment", pa.string()),
                    ("source", pa.string()),
                    ("at", pa.string()),
                    ("voter", pa.string()),
                ]
            )
        ),
    )
)


def parquet_write(rows: Iterable[ExportRow], file: IO[bytes], *, votes: bool = False) -> None:
    """Write a Parquet file, one row group at a time.

    Messages have the columns of tools only in a file with calls of tools: in any other they would
    be null in each message, which some chat templates take for a call.
    """
    schema = SCHEMA_WITH_VOTES if votes else SCHEMA
    writer = pq.ParquetWriter(file, schema, compression="zstd")
    try:
        for group in groups(rows):
            if writer.schema.equals(schema) and any(map(has_tools, group)):
                writer = with_tools(writer, file, schema)
            records = [row.as_record() | {"tools": tools_json(row)} for row in group]
            writer.write_table(pa.Table.from_pylist(records, schema=writer.schema))
    finally:
        writer.close()


def tools_json(row: ExportRow) -> str | None:
    return as_json(row.tools) if row.tools else None


def has_tools(row: ExportRow) -> bool:
    return any(message.keys() & set(OF_TOOLS) for message in row.prompt)


def with_tools(writer: pq.ParquetWriter, file: IO[bytes], schema: pa.Schema) -> pq.ParquetWriter:
    """Return a writer of the same file whose messages have the columns of tools; it starts with
    the rows that the file has."""
    writer.close()
    file.seek(0)
    with TemporaryFile() as before:
        copyfileobj(file, before)
        file.seek(0)
        file.truncate()
        wider = schema.set(0, pa.field("prompt", MESSAGES_WITH_TOOLS))
        again = pq.ParquetWriter(file, wider, compression="zstd")
        written = pq.ParquetFile(before)
        for number in range(written.num_row_groups):
            records = written.read_row_group(number).to_pylist()
            again.write_table(pa.Table.from_pylist(records, schema=wider))
    return again


def groups(rows: Iterable[ExportRow]) -> Iterator[list[ExportRow]]:
    """Yield the rows in lists that fit into memory."""
    group: list[ExportRow] = []
    characters = 0
    for row in rows:
        group.append(row)
        characters += sum(len(message["content"]) for message in (*row.prompt, *row.completion))
        characters += sum(len(vote.comment) for vote in row.votes or ())
        if len(group) == GROUP_ROWS or characters >= GROUP_CHARACTERS:
            yield group
            group, characters = [], 0
    if group:
        yield group
