"""KTO examples written to a file, in each format."""

from collections.abc import Iterable, Iterator
from typing import IO

from feedback_app.feedback.exports.rows import LINES, ExportRow


def export_write(
    rows: Iterable[ExportRow], file: IO[bytes], *, as_format: str, votes: bool = False
) -> int:
    """Write all rows to `file`; return how many."""
    count = 0

    def counted() -> Iterator[ExportRow]:
        nonlocal count
        for row in rows:
            count += 1
            yield row

    if as_format == "parquet":
        from feedback_app.feedback.exports.parquet import parquet_write  # imports pyarrow

        parquet_write(counted(), file, votes=votes)
    else:
        file.writelines(LINES[as_format](counted(), votes=votes))
    return count
