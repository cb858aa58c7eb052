"""Django's PostgreSQL, whose connections are looked after without asking the server."""

import select

from django.db.backends.postgresql import base
from psycopg.pq import TransactionStatus


class DatabaseWrapper(base.DatabaseWrapper):
    """Before each request Django asks whether the connection still works, with a statement.

    A server that stops or ends a connection says so on it and hangs up, so an idle connection with
    nothing to be read on it is a good one. CONN_MAX_AGE sees to it that none is idle for so long
    that somebody on the way forgets it.
    """

    def is_usable(self) -> bool:
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
