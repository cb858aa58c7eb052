"""The counters from which the database gives new rows their ids.

They are part of a backup: counted from the largest id that is left, the id of a deleted person
would be given to another one, and the audit trail knows people by their ids.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from django.db import connection, models


def next_ids_read(tables: Iterable[type[models.Model]]) -> dict[str, int]:
    """Return the largest id that each table has given so far, by table; 0 if none."""
    counted = [model for model in tables if isinstance(model._meta.pk, models.AutoField)]
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            cursor.execute("SELECT name, seq FROM sqlite_sequence")
            known = dict(cursor.fetchall())
            return {m._meta.db_table: known.get(m._meta.db_table, 0) for m in counted}
        found = {}
        for model in counted:
            cursor.execute(f"SELECT last_value, is_called FROM {sequence_of(cursor, model)}")  # noqa: S608
            value, used = cursor.fetchone()
            found[model._meta.db_table] = value if used else 0
        return found


def next_ids_write(tables: Iterable[type[models.Model]], ids: Mapping[str, int]) -> None:
    """Let each table continue after the id in `ids`."""
    with connection.cursor() as cursor:
        for model in tables:
            table = model._meta.db_table
            last = ids.get(table, 0)
            if not last:
                continue
            if connection.vendor == "sqlite":
                cursor.execute("DELETE FROM sqlite_sequence WHERE name = %s", [table])
                cursor.execute(
                    "INSERT INTO sqlite_sequence (name, seq) VALUES (%s, %s)", [table, last]
                )
            else:
                cursor.execute(f"SELECT setval('{sequence_of(cursor, model)}', {last:d})")


def sequence_of(cursor: Any, model: type[models.Model]) -> str:
    """Return the quoted name of the sequence of a table's primary key (PostgreSQL)."""
    pk = model._meta.pk
    assert pk is not None  # noqa: S101 - every model has one
    cursor.execute(
        "SELECT pg_get_serial_sequence(%s, %s)",
        [connection.ops.quote_name(model._meta.db_table), pk.column],
    )
    return str(cursor.fetchone()[0])
