"""Inserting many rows whose values are ready for the database driver."""

from collections.abc import Sequence
from typing import Any

from django.db import connection


def rows_insert(table: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Insert rows: with COPY on PostgreSQL, which takes a fraction of the time of INSERTs.

    Raises django.db.DatabaseError.
    """
    quote = connection.ops.quote_name
    names = ", ".join(map(quote, columns))
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            # the driver's method, whose errors Django does not translate
            with (
                connection.wrap_database_errors,
                cursor.copy(f"COPY {quote(table)} ({names}) FROM STDIN") as copy,
            ):
                for row in rows:
                    copy.write_row(row)
            return
        places = ", ".join(["%s"] * len(columns))
        insert = f"INSERT INTO {quote(table)} ({names}) VALUES ({places})"  # noqa: S608
        cursor.executemany(insert, rows)
