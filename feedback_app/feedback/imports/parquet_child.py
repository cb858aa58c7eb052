"""Reads a Parquet file in a process of its own with limited memory, and writes its rows as JSON.

A small file can expand to gigabytes while it is decoded, and its footer can state wrong sizes.
parquet.py starts this file as a program. It imports only pyarrow, so that it starts in a fraction
of a second and a crash of the decoder ends nothing else.

Protocol, one JSON value per line. Out: `{"names": […], "rows": n}`. In: `{"columns": […], "after":
n, "batch": n}`. Out: `[number, row, ""]` or `[number, null, fault]` per row, then `{"end": true}`.
`{"error": …}` may replace any line and is the last one.
"""

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

MEMORY = 512_000_000  # bytes that reading may take beyond the libraries
ROW_LIMIT = 8_000_000  # bytes of a row as JSON
COLUMNS_LIMIT = 10_000
#: A column that expands more than this many times, to more than EXPANDED_FROM bytes, is refused.
#: Text compresses less than a hundredfold; repeated values are a dictionary, which stays small.
EXPANSION_LIMIT = 1_000
EXPANDED_FROM = 64_000_000

TOO_MUCH_MEMORY = f"reading it takes more than {MEMORY // 10**6} MB of memory"
#: Errors that pyarrow raises for a damaged or forged file.
DAMAGE = (pa.ArrowException, OSError, ValueError)


class Refused(Exception):
    """The file cannot be read; the message is the reason."""


def answers(file: IO[bytes], requests: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the lines of the protocol for a file."""
    try:
        opened = opened_file(file)
        names = opened.schema_arrow.names
        yield line({"names": names, "rows": opened.metadata.num_rows})
        asked = json.loads(next(requests))
        yield from rows(opened, asked["columns"], after=asked["after"], batch=asked["batch"])
        yield line({"end": True})
    except Refused as error:
        yield line({"error": str(error)})


def opened_file(file: IO[bytes]) -> Any:
    """Open the file. Raise Refused."""
    try:
        opened = pq.ParquetFile(file, buffer_size=1 << 20, pre_buffer=False)
        columns = len(opened.schema_arrow.names)
    except (MemoryError, pa.ArrowMemoryError) as error:
        raise Refused(f"The file cannot be opened: {TOO_MUCH_MEMORY}.") from error
    except DAMAGE as error:
        raise Refused(f"The file is not valid Parquet: {error}") from error
    if columns > COLUMNS_LIMIT:
        raise Refused(f"The file has {columns:,} columns: at most {COLUMNS_LIMIT:,} can be read.")
    return opened


def rows(opened: Any, columns: list[str], *, after: int, batch: int) -> Iterator[bytes]:
    """Yield a line per row whose number is above `after`. Raise Refused."""
    meta = opened.metadata
    sizes_check(meta, set(columns), batch=batch)
    number, group = 0, 0
    while group < meta.num_row_groups and number + meta.row_group(group).num_rows <= after:
        number += meta.row_group(group).num_rows
        group += 1
    rest = list(range(group, meta.num_row_groups))
    try:
        for part in opened.iter_batches(batch, row_groups=rest, columns=columns, use_threads=False):
            for value, fault in values(part):
                number += 1
                if number > after:
                    yield row_line(number, value, fault)
    except (MemoryError, pa.ArrowMemoryError) as error:
        raise Refused(
            f"The file cannot be read after row {number}: {TOO_MUCH_MEMORY}. "
            "Write it with smaller values."
        ) from error
    except DAMAGE as error:
        raise Refused(f"The file is damaged after row {number}: {error}") from error


def sizes_check(meta: Any, columns: set[str], *, batch: int) -> None:
    """Raise Refused if the footer states sizes that cannot be read. It may state wrong ones."""
    row_limit = MEMORY // batch
    for group in (meta.row_group(number) for number in range(meta.num_row_groups)):
        size = 0
        for column in (group.column(number) for number in range(group.num_columns)):
            if column.path_in_schema.partition(".")[0] not in columns:
                continue
            expanded = column.total_uncompressed_size
            size += expanded
            if expanded > max(EXPANDED_FROM, EXPANSION_LIMIT * column.total_compressed_size):
                raise Refused(
                    f"Column {column.path_in_schema} expands from {column.total_compressed_size:,} "
                    f"bytes to {expanded // 10**6:,} MB: at most {EXPANSION_LIMIT:,} times is read."
                )
        if size > row_limit * max(1, group.num_rows):
            raise Refused(
                f"Rows have {size // max(1, group.num_rows) // 10**6:,} MB on average: "
                f"at most {row_limit // 10**6} MB can be read."
            )


def values(part: Any) -> Iterator[tuple[Any, str]]:
    """Yield the rows of a batch, or why one cannot be read; invalid UTF-8 is detected here."""
    try:
        yield from ((value, "") for value in part.to_pylist())
    except DAMAGE:
        for index in range(part.num_rows):
            try:
                yield part.slice(index, 1).to_pylist()[0], ""
            except DAMAGE as error:
                yield None, f"not readable: {error}"


def row_line(number: int, value: Any, fault: str) -> bytes:
    try:
        found = line([number, value, fault])
    except RecursionError:
        return line([number, None, "nested too deeply"])
    if len(found) > ROW_LIMIT:
        return line([number, None, f"the row is larger than {ROW_LIMIT // 10**6} MB"])
    return found


def plain(value: Any) -> object:
    """Return what JSON can express of a value: bytes are no text, dates and numbers are."""
    return {"bytes": len(value)} if isinstance(value, bytes) else str(value)


ENCODER = json.JSONEncoder(ensure_ascii=False, default=plain)


def line(value: object) -> bytes:
    return ENCODER.encode(value).encode("utf-8", "replace") + b"\n"


def memory_limit() -> None:
    """Limit this process's memory where the system can: Linux reports how much it has already."""
    import resource

    with contextlib.suppress(OSError, ValueError), open("/proc/self/statm") as file:  # noqa: PTH123
        taken = int(file.read().split()[0]) * resource.getpagesize()
        limit = taken + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def main() -> None:
    # pyarrow starts threads for its work at the first read
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    memory_limit()
    out = sys.stdout.buffer
    with os.fdopen(int(sys.argv[1]), "rb") as file, contextlib.suppress(BrokenPipeError):
        for each in answers(file, iter(sys.stdin.buffer)):
            out.write(each)
            if each.startswith(b"{"):  # the reader waits for it
                out.flush()


if __name__ == "__main__":
    main()
