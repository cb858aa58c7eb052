"""Reading the whole database as it was at one moment, while others write."""

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import connection, transaction


@contextmanager
def read_snapshot() -> Iterator[None]:
    """Show the block the database of one moment. Writers do not wait for it. Do not write in it."""
    if connection.in_atomic_block:
        raise RuntimeError("read_snapshot() cannot start inside a transaction")
    if connection.vendor == "sqlite":
        # atomic() would take the write lock (transaction_mode in settings.py)
        with connection.cursor() as cursor:
            cursor.execute("BEGIN DEFERRED")
            try:
                cursor.execute("SELECT COUNT(*) FROM sqlite_master")  # the moment is its first read
                yield
            finally:
                cursor.execute("ROLLBACK")
        return
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        yield
