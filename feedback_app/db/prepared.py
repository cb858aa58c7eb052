"""SQL that is built once, for the queries of a vote at the annotation page.

Django builds a query's SQL at every use, which takes longer than the database needs to answer:
with plain querysets a vote takes twice the processor time (docs/log.md, 2026-11-29). These queries
differ only in a few values. `_Compiled` uses undocumented parts of Django's compiler;
tests/db/test_prepared.py fails if they change.
"""

import datetime as dt
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, Generic, TypeVar

from django.db import DEFAULT_DB_ALIAS, connection, connections
from django.db.models import Model, QuerySet
from django.db.models.expressions import RawSQL
from django.db.models.query import get_related_populators

M = TypeVar("M", bound=Model)
#: A statement and its parameters.
Statement = tuple[str, Sequence[Any]]
#: The condition in later statements of `run_if_new` that the first one has stored its row.
STORED = "EXISTS (SELECT 1 FROM stored)"


@dataclass(frozen=True)
class Slot:
    """A placeholder for a value in the SQL of a Prepared."""

    name: str


class Prepared(Generic[M]):
    """A queryset of model instances whose SQL is built at its first use.

    `build(*shape, **values)` returns the queryset. Each `shape` and set of value names has its own
    SQL; the values are passed with each call and may be used where a lookup takes a value.
    """

    def __init__(self, build: Callable[..., QuerySet[M]]) -> None:
        self._build = build
        self._known: dict[tuple[Hashable, ...], _Compiled[M]] = {}

    def rows(self, *shape: Hashable, **values: Any) -> list[M]:
        """Return the queryset's rows for these values."""
        # `connection` is a proxy that looks the connection up at every use
        database: Any = connections[DEFAULT_DB_ALIAS]
        key = (database.vendor, *shape, *values)
        compiled = self._known.get(key)
        if compiled is None:
            slots = {name: RawSQL("%s", [Slot(name)]) for name in values}
            compiled = self._known[key] = _Compiled(self._build(*shape, **slots))
        return compiled.rows(database, values)

    def first(self, *shape: Hashable, **values: Any) -> M | None:
        """Return the first of `rows`, for querysets that are limited to one."""
        return next(iter(self.rows(*shape, **values)), None)


class _Compiled(Generic[M]):
    """The parts of Django's ModelIterable that are the same at every use."""

    def __init__(self, queryset: QuerySet[M]) -> None:
        compiler: Any = queryset.query.get_compiler(using=connection.alias)
        self._sql, self._parameters = compiler.as_sql()
        self._model: type[M] = queryset.model
        self._columns = slice(
            compiler.klass_info["select_fields"][0], compiler.klass_info["select_fields"][-1] + 1
        )
        # a set: Django tests each field of the model for membership
        self._names = {column.target.attname for column, *_ in compiler.select[self._columns]}
        populators: Any = get_related_populators  # its last argument is newer than Django 5.2
        self._related = populators(compiler.klass_info, compiler.select, connection.alias)
        self._converters = compiler.get_converters([column for column, *_ in compiler.select])
        self._convert = compiler.apply_converters
        self._annotations = compiler.annotation_col_map or {}

    def rows(self, database: Any, values: dict[str, Any]) -> list[M]:
        given = [
            values[value.name] if isinstance(value, Slot) else value for value in self._parameters
        ]
        with database.cursor() as cursor:
            cursor.execute(self._sql, adapted(database, given))
            found = cursor.fetchall()
        instances = []
        for row in self._convert(found, self._converters) if self._converters else found:
            instance = self._model.from_db(database.alias, self._names, row[self._columns])
            for related in self._related:
                related.populate(row, instance)
            for name, column in self._annotations.items():
                setattr(instance, name, row[column])
            instances.append(instance)
        return instances


def adapted(database: Any, values: Sequence[Any]) -> list[Any]:
    """Return the values as the database driver takes them."""
    adapt = database.ops.adapt_datetimefield_value
    return [adapt(value) if isinstance(value, dt.datetime) else value for value in values]


def run(sql: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Run a statement with constant text; return its rows."""
    database: Any = connections[DEFAULT_DB_ALIAS]
    with database.cursor() as cursor:
        cursor.execute(sql, adapted(database, values))
        found: list[tuple[Any, ...]] = cursor.fetchall() if cursor.description else []
        return found


def insertion(
    instance: Model,
    *,
    unique: Sequence[str] = (),
    update: Sequence[str] = (),
    where: str = "TRUE",
) -> Statement:
    """Return the statement that inserts this row if `where` holds.

    On a conflict on `unique` it updates `update`, or does nothing and returns no row if that is
    empty. A key generated by the database is returned by the statement and not set on the instance.
    """
    meta: Any = instance._meta
    database: Any = connections[DEFAULT_DB_ALIAS]
    fields = [field for field in meta.concrete_fields if not field.db_returning]
    values = [
        field.get_db_prep_save(field.pre_save(instance, add=True), database) for field in fields
    ]
    return _insertion_sql(type(instance), tuple(unique), tuple(update), where), values


@cache
def _insertion_sql(
    model: type[Model], unique: tuple[str, ...], update: tuple[str, ...], where: str
) -> str:
    meta: Any = model._meta
    quoted = connection.ops.quote_name  # the same on both databases
    fields = [field for field in meta.concrete_fields if not field.db_returning]
    columns = ", ".join(quoted(field.column) for field in fields)
    places = ", ".join(["%s"] * len(fields))
    sql = f"INSERT INTO {quoted(meta.db_table)} ({columns}) SELECT {places} WHERE {where}"
    if unique:
        keys = ", ".join(quoted(meta.get_field(name).column) for name in unique)
        changed = [quoted(meta.get_field(name).column) for name in update]
        sets = ", ".join(f"{column} = EXCLUDED.{column}" for column in changed)
        sql += f" ON CONFLICT ({keys}) DO {f'UPDATE SET {sets}' if sets else 'NOTHING'}"
    return f"{sql} RETURNING {quoted(meta.pk.column)}"


def run_if_new(first: Statement, *then: Statement) -> list[tuple[Any, ...]]:
    """Run an insertion and, if it stored a row, the other statements; return its rows.

    The other statements contain `STORED` as their condition. On PostgreSQL all run as one
    statement, so none sees the writes of another.
    """
    if connections[DEFAULT_DB_ALIAS].vendor != "postgresql":
        rows = run(*first)
        for sql, values in then if rows else ():
            run(sql.replace(STORED, "TRUE"), values)
        return rows
    sql = _as_one(first[0], *(sql for sql, _ in then))
    return run(sql, [value for _, values in (first, *then) for value in values])


@lru_cache(maxsize=100)
def _as_one(first: str, *then: str) -> str:
    parts = ", ".join(f"part{number} AS ({sql})" for number, sql in enumerate(then))
    return f"WITH stored AS ({first}), {parts} SELECT * FROM stored"  # noqa: S608
