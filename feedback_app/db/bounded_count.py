"""Counts of rows up to a bound, so that a page's cost does not grow with its table."""

from typing import Any

from django.db import connection
from django.db.models import Model, QuerySet
from django.db.models.expressions import RawSQL

#: The bound; a count of one more means 'more than'.
COUNTED = 10_000
#: The bound of lists that people work through, whose rows no index holds completely.
LISTED = 1_000


def counted(rows: QuerySet[Any], *, most: int | None = None) -> int:
    """Return the number of rows, at most one more than `most` (or COUNTED)."""
    most = COUNTED if most is None else most
    return rows.order_by()[: most + 1].count()


def counted_of(
    owner: type[Model],
    rows: type[Model],
    where: str = "TRUE",
    *,
    on: tuple[str, str] = ("project_id", "project_id"),
    most: int | None = None,
) -> RawSQL:
    """Return `counted` as a column of each `owner`: of the `rows` that belong to it where `where`
    holds.

    `where` is SQL. `on` names the columns of `rows` and of `owner` that are equal.
    """
    quoted = connection.ops.quote_name
    table, outer = quoted(rows._meta.db_table), quoted(owner._meta.db_table)
    within = f"{table}.{on[0]} = {outer}.{on[1]} AND {where}"
    limit = (COUNTED if most is None else most) + 1
    several = f"SELECT 1 FROM {table} WHERE {within} LIMIT {limit}"  # noqa: S608
    return RawSQL(f"SELECT COUNT(*) FROM ({several}) AS several", [])  # noqa: S608, S611
