"""Opening a file of rows: JSONL, JSON, CSV or Parquet."""

from pathlib import Path
from typing import IO

from feedback_app.feedback.imports.json_rows import JsonRows
from feedback_app.feedback.imports.readers import (
    BOM,
    Columns,
    CsvRows,
    JsonlRows,
    Rows,
    Unreadable,
)


def open_path(path: Path) -> IO[bytes]:
    """Open the file. Raise Unreadable."""
    try:
        return path.open("rb")
    except OSError as error:
        raise Unreadable(f"The file cannot be opened: {error.strerror}.") from error


def is_parquet(file: IO[bytes]) -> bool:
    """Return whether an open file is Parquet, which is read from its end."""
    file.seek(0)
    head = file.read(4)
    file.seek(0)
    return head == b"PAR1"


def open_rows(file: IO[bytes], *, columns: Columns | None = None, every: bool = False) -> Rows:
    """Return the file's rows; the content decides the format.

    With `every`, rows have all columns under the file's own names and none need be known. Raise
    Unreadable.
    """
    columns = columns or {}
    head = file.read(4096)
    file.seek(0)
    start = head.removeprefix(BOM).lstrip()
    if head[:4] == b"PAR1":
        from feedback_app.feedback.imports.parquet import ParquetRows  # imports pyarrow

        return ParquetRows(file, columns, every=every)
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise Unreadable("The file is UTF-16. Save it as UTF-8.")
    if head[:2] in (b"\x1f\x8b", b"PK"):
        raise Unreadable("The file is compressed. Unpack it first.")
    if not start:
        raise Unreadable("The file is empty.")
    if start[:1] == b"[" or start.split(b"\n", 1)[0].strip() == b"{":
        return JsonRows(file, columns)
    return JsonlRows(file, columns) if start[:1] == b"{" else CsvRows(file, columns, every=every)
