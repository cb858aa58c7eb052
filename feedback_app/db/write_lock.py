"""One after the other: how those who write to the queue wait for each other on SQLite."""

import fcntl
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from django.db import connection, transaction


def write_transaction() -> AbstractContextManager[None]:
    """A transaction, entered in the order of arrival.

    SQLite lets one writer in and has the others look again, up to a tenth of a second later, in
    any order: with eight annotators one in a hundred waited for seconds. The kernel's lock on a
    file hands over at once. Other writers still meet SQLite's own lock, so nothing rests on this
    for being right. PostgreSQL locks rows and needs none of it.
    """
    # whoever is inside a transaction has had their turn, or would wait for it forever
    if connection.vendor != "sqlite" or connection.in_atomic_block:
        return transaction.atomic()
    return _transaction_after_others()


@contextmanager
def _transaction_after_others() -> Iterator[None]:
    database = Path(connection.settings_dict["NAME"])
    with database.with_name(f"{database.name}-turn").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)  # closing the file gives it back
        with transaction.atomic():
            yield
