"""Rows of a table as a compressed JSONL file: a line with the column names, then a line per row.

Rows are streamed in both directions, so memory does not grow with a table. Values are written as
Django reads them and stored as Django stores them, so SQLite and PostgreSQL can read each other's
files.
"""

import datetime as dt
import gzip
import json
import re
import time
import uuid
import zlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from django.db import DatabaseError, connection, models

from feedback_app.db.bulk_rows import rows_insert
from feedback_app.operations.backup.manifest import BackupError, Say

READ_ROWS = 2_000
WRITE_ROWS = 1_000
PROGRESS_SECONDS = 10.0
#: NUL in a line of JSON: PostgreSQL stores none, SQLite does, and a model may generate it.
NUL = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")
#: Types of fields whose values are the same in JSON and for the database drivers.
AS_IN_JSON = set(
    "AutoField BigAutoField BigIntegerField BooleanField CharField FloatField IntegerField "
    "PositiveBigIntegerField PositiveIntegerField PositiveSmallIntegerField SlugField "
    "TextField".split()
)
Model = type[models.Model]


def file_of(table: str) -> str:
    """Return the path of a table's file under the backup."""
    return f"database/{table}.jsonl.gz"


def columns_of(model: Model) -> list[Any]:
    return list(model._meta.concrete_fields)


def table_write(model: Model, path: Path, say: Say) -> int:
    """Write all rows in the order of their keys; return their number."""
    names = [field.attname for field in columns_of(model)]
    rows = model._base_manager.order_by("pk").values_list(*names).iterator(chunk_size=READ_ROWS)
    encode = json.JSONEncoder(default=encoded, separators=(",", ":")).encode
    progress = Progress(model, say)
    count = 0
    # no time stamp in the file: the same rows give the same bytes
    with path.open("wb") as raw, gzip.GzipFile("", "wb", 1, raw, mtime=0) as file:
        file.write(encode(names).encode() + b"\n")
        while lines := [encode(row) for row in islice(rows, READ_ROWS)]:
            file.write("\n".join(lines).encode() + b"\n")
            count += len(lines)
            progress.show(count)
    return count


def encoded(value: object) -> str:
    if isinstance(value, dt.datetime | dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, uuid.UUID):
        return str(value)
    raise TypeError(f"a column of type {type(value).__name__} cannot be backed up")


def table_read(model: Model, path: Path, say: Say) -> int:
    """Insert all rows of a file into an empty table; return their number. Raises BackupError."""
    known = {field.attname: field for field in columns_of(model)}
    table = model._meta.db_table
    progress = Progress(model, say)
    count = 0
    try:
        lines = lines_of(path)
        names = json.loads(next(lines, "[]"))
        # in their order: a model of the migrations may have another one than the model of the code
        if sorted(names) != sorted(known):
            raise BackupError(
                f"{path.name} has other columns than the table {table}. "
                "Restore with the version of Prospect that made the backup."
            )
        fields = [known[name] for name in names]
        columns = [field.column for field in fields]
        converters = [converting(field) for field in fields]
        while chunk := list(islice(lines, WRITE_ROWS)):
            rows_insert(table, columns, [stored(converters, json.loads(line)) for line in chunk])
            count += len(chunk)
            progress.show(count)
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise BackupError(f"{path} cannot be read: {error}. Use another backup.") from error
    except DatabaseError as error:
        raise BackupError(
            f"The database refused rows {count + 1} to {count + WRITE_ROWS} of {table}: "
            f"{' '.join(str(error).split())}."
        ) from error
    return count


def lines_of(path: Path) -> Iterator[str]:
    without_nul = connection.vendor == "postgresql"
    with gzip.open(path, "rt", encoding="utf-8", newline="\n") as file:
        for line in file:
            yield NUL.sub(r"\1\\ufffd", line) if without_nul and "\\u0000" in line else line


def stored(converters: list[Any], values: list[Any]) -> list[Any]:
    """Return the values as the database driver takes them."""
    return [
        value if field is None else field.get_db_prep_save(field.to_python(value), connection)
        for field, value in zip(converters, values, strict=True)
    ]


def converting(field: Any) -> Any | None:
    """Return the field that converts a column's values, or None where the driver takes them.

    Django's conversion of values that need none is most of the time of a restore.
    """
    while field.remote_field:
        field = field.target_field
    return None if field.get_internal_type() in AS_IN_JSON else field


class Progress:
    """Shows the number of rows of a table every few seconds."""

    def __init__(self, model: Model, say: Say) -> None:
        self._table, self._say, self._shown = model._meta.db_table, say, time.monotonic()

    def show(self, count: int) -> None:
        if time.monotonic() - self._shown >= PROGRESS_SECONDS:
            self._shown = time.monotonic()
            self._say(f"  {self._table}: {count:,} rows so far")
