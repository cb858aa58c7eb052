"""Counts of rows up to a bound, so that a page's cost does not grow with its table."""

from typing import Any

from django.db import connection
from django.db.models import Model, QuerySet
from django.db.models.expressions import RawSQL

#: The bound; a count of one more means 'more than'.
COUNTED = 10_000


def counted(rows: QuerySet[Any]) -> int:
    """Return the number of rows, at most COUNTED + 1."""
    return rows.order_by()[: COUNTED + 1].count()


def counted_of(owner: type[Model], rows: type[Model], where: str) -> RawSQL:
    """Return `counted` as a column of each `owner`: of the `rows` in its project where `where`
    holds.

    `where` is SQL.
    """
    quoted = connection.ops.quote_name
    table, outer = quoted(rows._meta.db_table), quoted(owner._meta.db_table)
    within = f"{table}.project_id = {outer}.project_id AND {where}"
    several = f"SELECT 1 FROM {table} WHERE {within} LIMIT {COUNTED + 1}"  # noqa: S608
    return RawSQL(f"SELECT COUNT(*) FROM ({several}) AS several", [])  # noqa: S608, S611
