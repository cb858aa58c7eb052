"""SQL that is built once, for the one path that is walked hundreds of times an hour.

Django builds the SQL of a query anew at every use, which costs it more than the database needs to
answer (docs/log.md has the figures). What a verdict at the annotator's desk asks is always the
same but for a few values.
"""

import datetime as dt
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from django.conf import settings
from django.db import connection
from django.db.models import Model, QuerySet
from django.db.models.expressions import RawSQL
from django.db.models.query import get_related_populators

M = TypeVar("M", bound=Model)
#: A statement and its parameters.
Statement = tuple[str, Sequence[Any]]


@dataclass(frozen=True)
class Slot:
    """Where a value goes into the SQL of a Prepared."""

    name: str


class Prepared(Generic[M]):
    """A queryset of model instances whose SQL is built at its first use.

    `build(*shape, **values)` gives the queryset. Each `shape` and each choice of values has a SQL
    of its own; what the values are comes with each call. They stand where a lookup takes one.
    """

    def __init__(self, build: Callable[..., QuerySet[M]]) -> None:
        self._build = build
        self._known: dict[tuple[Hashable, ...], _Compiled[M]] = {}

    def rows(self, *shape: Hashable, **values: Any) -> list[M]:
        """What the queryset would give for these values."""
        key = (connection.vendor, *shape, *values)
        compiled = self._known.get(key)
        if compiled is None:
            slots = {name: RawSQL("%s", [Slot(name)]) for name in values}
            compiled = self._known[key] = _Compiled(self._build(*shape, **slots))
        return compiled.rows(values)

    def first(self, *shape: Hashable, **values: Any) -> M | None:
        """The first of `rows`: for querysets that are limited to one."""
        return next(iter(self.rows(*shape, **values)), None)


class _Compiled(Generic[M]):
    """What Django's ModelIterable works out for each use of a queryset."""

    def __init__(self, queryset: QuerySet[M]) -> None:
        compiler: Any = queryset.query.get_compiler(using=connection.alias)
        self._sql, self._parameters = compiler.as_sql()
        self._model: type[M] = queryset.model
        self._columns = slice(
            compiler.klass_info["select_fields"][0], compiler.klass_info["select_fields"][-1] + 1
        )
        self._names = [column.target.attname for column, *_ in compiler.select[self._columns]]
        populators: Any = get_related_populators  # its last argument is newer than Django 5.2
        self._related = populators(compiler.klass_info, compiler.select, connection.alias)
        self._converters = compiler.get_converters([column for column, *_ in compiler.select])
        self._convert = compiler.apply_converters
        self._annotations = compiler.annotation_col_map or {}

    def rows(self, values: dict[str, Any]) -> list[M]:
        given = [
            adapted(values[value.name]) if isinstance(value, Slot) else value
            for value in self._parameters
        ]
        with planned_once() as cursor:
            cursor.execute(self._sql, given)
            found = cursor.fetchall()
        instances = []
        for row in self._convert(found, self._converters):
            instance = self._model.from_db(connection.alias, self._names, row[self._columns])
            for related in self._related:
                related.populate(row, instance)
            for name, column in self._annotations.items():
                setattr(instance, name, row[column])
            instances.append(instance)
        return instances


def planned_once() -> Any:
    """A cursor whose statements PostgreSQL plans once a connection: planning one of ours takes it
    longer than running it."""
    if connection.vendor != "postgresql" or not settings.DATABASE_PREPARES:
        return connection.cursor()
    from feedback_app.statements_postgres import planning_cursor

    connection.ensure_connection()
    # Django's own wrapper: it counts queries and keeps to its thread
    wrapper: Any = connection
    return wrapper._prepare_cursor(planning_cursor(wrapper.connection))


def adapted(value: Any) -> Any:
    """A value as the database's driver takes it."""
    if isinstance(value, dt.datetime):
        return connection.ops.adapt_datetimefield_value(value)
    return value


def insertion(
    instance: Model, *, unique: Sequence[str] = (), update: Sequence[str] = ()
) -> Statement:
    """The statement that inserts this row, and where `unique` has it already updates `update`.

    A key that the database gives is returned by the statement and not set on the instance.
    """
    meta: Any = instance._meta
    quoted = connection.ops.quote_name
    fields = [field for field in meta.concrete_fields if not field.db_returning]
    columns = ", ".join(quoted(field.column) for field in fields)
    places = ", ".join(["%s"] * len(fields))
    sql = f"INSERT INTO {quoted(meta.db_table)} ({columns}) VALUES ({places})"  # noqa: S608
    if unique:
        keys = ", ".join(quoted(meta.get_field(name).column) for name in unique)
        changed = [quoted(meta.get_field(name).column) for name in update]
        sets = ", ".join(f"{column} = EXCLUDED.{column}" for column in changed)
        sql += f" ON CONFLICT ({keys}) DO UPDATE SET {sets}"
    values = [
        field.get_db_prep_save(field.pre_save(instance, add=True), connection) for field in fields
    ]
    return f"{sql} RETURNING {quoted(meta.pk.column)}", values


def run_together(statements: Sequence[Statement]) -> list[list[tuple[Any, ...]]]:
    """Runs them in order; returns the rows of each. PostgreSQL gets all of them at once."""
    with connection.cursor() as cursor:
        if not takes_several():
            found = []
            for sql, values in statements:
                cursor.execute(sql, values)
                found.append(cursor.fetchall() if cursor.description else [])
            return found
        cursor.execute(
            "; ".join(sql for sql, _ in statements),
            [value for _, values in statements for value in values],
        )
        found = [cursor.fetchall() if cursor.description else []]
        while cursor.nextset():
            found.append(cursor.fetchall() if cursor.description else [])
        return found


def takes_several() -> bool:
    """Whether the driver sends several statements at once: not if the server binds values."""
    options = connection.settings_dict.get("OPTIONS", {})
    return connection.vendor == "postgresql" and not options.get("server_side_binding")
