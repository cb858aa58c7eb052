"""What of statements.py is psycopg's: only imported where PostgreSQL is."""

from typing import Any

from psycopg import Connection, Cursor
from psycopg._queries import PostgresQuery


class PlannedOnce(Cursor[Any]):
    """A cursor of psycopg's own that prepares whatever it executes."""

    def execute(self, query: Any, params: Any = None, **options: Any) -> "PlannedOnce":
        super().execute(query, params, prepare=True, **options)
        if self._query is None:
            # psycopg keeps no text of what was prepared before; Django's log of queries wants one
            self._query = PostgresQuery(self._tx)
            self._query.query = query.encode()
        return self


def planning_cursor(connection: Connection[Any]) -> PlannedOnce:
    """For a connection of Django's, which prepares nothing by itself and goes on so: its other
    cursors bind values in the client and are never prepared."""
    connection.prepare_threshold = 0
    return PlannedOnce(connection)
