"""Writing export rows as Parquet. Imported only when needed: pyarrow takes 50 MB."""

from collections.abc import Iterable, Iterator
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from feedback_app.feedback.exports.rows import VOTES, ExportRow

#: Maximum rows and characters of a Parquet row group.
GROUP_ROWS = 1_000
GROUP_CHARACTERS = 8_000_000

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
    """Write a Parquet file, one row group at a time."""
    schema = SCHEMA_WITH_VOTES if votes else SCHEMA
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for group in groups(rows):
            records = [row.as_record() for row in group]
            writer.write_table(pa.Table.from_pylist(records, schema=schema))


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
