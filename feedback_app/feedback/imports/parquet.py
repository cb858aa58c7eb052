"""Streaming rows of a Parquet file. Imported only when needed: pyarrow takes 50 MB."""

from collections.abc import Iterator
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from feedback_app.feedback.imports.readers import (
    KNOWN,
    Columns,
    Record,
    Rows,
    Unreadable,
    cleaned,
    columns_check,
    renamed,
)

BATCH = 64  # rows in memory at once
BATCH_OF_ALL = 8  # the same where all columns are read, as some may hold images
#: Errors that pyarrow raises for a damaged or forged file.
_DAMAGE = (pa.ArrowException, OSError, ValueError, MemoryError)


class ParquetRows(Rows):
    """Reads row groups in small batches, and only columns that a shape uses."""

    def __init__(self, file: IO[bytes], columns: Columns, *, every: bool = False) -> None:
        try:
            self.file = pq.ParquetFile(file, buffer_size=1 << 20, pre_buffer=False)
            names = self.file.schema_arrow.names
        except _DAMAGE as error:
            raise Unreadable(cleaned(f"The file is not valid Parquet: {error}")) from error
        self.columns = columns
        self.batch = BATCH_OF_ALL if every else BATCH
        used = KNOWN | set(columns.values())
        if every:
            used = used.union(names)
        else:
            columns_check(columns, names)
        self.used = [name for name in names if name in used]

    def records(self, *, after: int = 0) -> Iterator[Record]:
        meta = self.file.metadata
        total = max(1, meta.num_rows)
        number, group = 0, 0
        while group < meta.num_row_groups and number + meta.row_group(group).num_rows <= after:
            number += meta.row_group(group).num_rows
            group += 1
        rest = list(range(group, meta.num_row_groups))
        try:
            for batch in self.file.iter_batches(
                self.batch, row_groups=rest, columns=self.used, use_threads=False
            ):
                for index in range(batch.num_rows):
                    number += 1
                    if number > after:
                        yield parquet_record(number, batch, index, self.columns)
                self.share = number / total
        except _DAMAGE as error:
            raise Unreadable(cleaned(f"The file is damaged after row {number}: {error}")) from error


def parquet_record(number: int, batch: pa.RecordBatch, index: int, columns: Columns) -> Record:
    """Return one row of a batch; invalid UTF-8 is detected here."""
    try:
        return Record(number, renamed(batch.slice(index, 1).to_pylist()[0], columns))
    except _DAMAGE as error:
        return Record(number, {}, f"not readable: {error}")
