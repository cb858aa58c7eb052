"""Django's PostgreSQL, spared some of what it asks and builds for each request and statement."""

import select
from typing import Any

from django.conf import settings
from django.db.backends.postgresql import base
from psycopg import Connection, Cursor
from psycopg._queries import PostgresQuery
from psycopg.pq import TransactionStatus

#: Statements of a connection whose cursors are kept: psycopg keeps as many plans.
KEPT = 100


class PlannedOnce(Cursor[Any]):
    """A cursor of psycopg's own for one statement, which it prepares.

    It is kept for the next time: psycopg finds out how to pass a statement's values and how to
    read its columns once a cursor, as long as it is given the very same text.
    """

    def __init__(self, connection: Connection[Any], sql: str) -> None:
        super().__init__(connection)
        self._sql = sql

    def execute(self, query: Any, params: Any = None, **options: Any) -> "PlannedOnce":
        super().execute(self._sql, params, prepare=True, **options)
        if self._query is None:
            # psycopg keeps no text of what was prepared before; Django's log of queries wants one
            self._query = PostgresQuery(self._tx)
            self._query.query = self._sql.encode()
        return self

    def close(self) -> None:
        """Nothing: whoever is done with it is done for this time."""


class DatabaseWrapper(base.DatabaseWrapper):
    """Looks at idle connections without asking the server, and keeps cursors."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._plans: bool = settings.DATABASE_PREPARES
        self._kept: dict[str, PlannedOnce] = {}
        self._kept_of: Connection[Any] | None = None

    def is_usable(self) -> bool:
        """Before each request Django asks whether the connection still works, with a statement.

        A server that stops or ends a connection says so on it and hangs up, so an idle one with
        nothing to be read on it is good. CONN_MAX_AGE sees to it that none is idle for so long
        that somebody on the way forgets it.
        """
        return self._is_silent() or super().is_usable()

    def _is_silent(self) -> bool:
        connection = self.connection
        # after an error it has to show more than that
        if connection is None or connection.closed or self.errors_occurred:
            return False
        if connection.info.transaction_status != TransactionStatus.IDLE:
            return False
        poll = select.poll()
        poll.register(connection.fileno(), select.POLLIN)
        return not poll.poll(0)

    def cursor_planned(self, sql: str) -> Any:
        """The cursor of this statement, which PostgreSQL plans once a connection if the settings
        let it. All other cursors are Django's, which binds values itself and prepares nothing."""
        if not self._plans:
            return self.cursor()
        self.ensure_connection()
        if self._kept_of is not self.connection or len(self._kept) > KEPT:
            self._kept_of, self._kept = self.connection, {}
            # Django has it off altogether; what is not asked to prepare still does not
            self.connection.prepare_threshold = 0
        cursor = self._kept.get(sql)
        if cursor is None:
            cursor = self._kept[sql] = PlannedOnce(self.connection, sql)
        # what Django wraps its own in: it counts queries and keeps to its thread
        wrap: Any = getattr(self, "_prepare_cursor")  # noqa: B009  # unknown to the stubs
        return wrap(cursor)
