"""A fair write lock for SQLite."""

import fcntl
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from django.db import connection, transaction


def write_transaction() -> AbstractContextManager[None]:
    """Return a transaction that is entered in the order of arrival.

    SQLite admits one writer and lets the others retry after up to a tenth of a second, in any
    order: with eight annotators one in a hundred waited for seconds. A file lock is handed over at
    once. Correctness does not depend on it, as SQLite's own lock remains. PostgreSQL locks rows and
    does not need it.
    """
    # inside a transaction the lock is held already, or waiting for it could deadlock
    if connection.vendor != "sqlite" or connection.in_atomic_block:
        return transaction.atomic()
    return _transaction_after_others()


@contextmanager
def _transaction_after_others() -> Iterator[None]:
    database = Path(connection.settings_dict["NAME"])
    with database.with_name(f"{database.name}-turn").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)  # closing the file releases it
        with transaction.atomic():
            yield
