"""A fair write lock for SQLite: writers of the queue get their turn in order of arrival."""

import fcntl
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from django.db import connection, transaction


def write_transaction() -> AbstractContextManager[None]:
    """Return a transaction that writers enter in order of arrival.

    SQLite admits one writer and lets the others poll, up to a tenth of a second later, in any
    order: with eight annotators one in a hundred waited for seconds. A file lock of the kernel is
    passed on at once. Correctness does not depend on it: other writers use SQLite's own lock.
    PostgreSQL locks rows and needs no such lock.
    """
    # inside a transaction the lock is held already, or waiting for it would deadlock
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
