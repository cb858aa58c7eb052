"""Checks of the database itself."""

import datetime as dt
from collections.abc import Iterator
from pathlib import Path

from django.contrib.contenttypes.models import ContentType
from django.db import DatabaseError, connection, transaction
from django.db.migrations.loader import MigrationLoader
from django.utils import timezone

from feedback_app.operations.doctor.findings import Problem, listed, reason

MOUNTS = Path("/proc/self/mounts")
#: File systems on which SQLite's locks and shared memory do not work between hosts.
NETWORK = {
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "9p",
    "ceph",
    "glusterfs",
    "lustre",
    "fuse.sshfs",
}
MOST_SKEW = dt.timedelta(seconds=5)


def reachable() -> Iterator[Problem]:
    try:
        connection.ensure_connection()
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseError as error:
        yield Problem(
            f"The database cannot be reached: {reason(error)}.",
            "Start it, and compare DATABASE_URL.",
        )


def migrations() -> Iterator[Problem]:
    loader = MigrationLoader(connection)
    known, applied = set(loader.graph.nodes), set(loader.applied_migrations)
    if pending := sorted(f"{app}.{name}" for app, name in known - applied):
        yield Problem(
            f"{len(pending)} migrations are pending: {listed(pending)}.",
            "Run `manage.py migrate`.",
        )
    ours = {app for app, _ in known}
    unknown = applied - loader.disk_migrations.keys()
    if newer := sorted(f"{a}.{name}" for a, name in unknown if a in ours):
        yield Problem(
            f"The database is newer than this version of Prospect: {listed(newer)}.",
            "Install the version that migrated it.",
        )


def writable() -> Iterator[Problem]:
    try:
        with transaction.atomic():
            ContentType.objects.create(app_label="doctor", model="probe")
            transaction.set_rollback(True)
    except DatabaseError as error:
        yield Problem(
            f"The database cannot be written: {reason(error)}.",
            "Check its disk, its permissions, and that it is no read-only replica.",
        )


def journal() -> Iterator[Problem]:
    if connection.vendor != "sqlite":
        return
    mode = journal_mode()
    if mode != "wal":
        yield Problem(
            f"SQLite's journal mode is {mode}, so readers and writers wait for each other.",
            "Put the database on a local disk and restart; Prospect turns WAL on.",
        )


def journal_mode() -> str:
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA journal_mode")
        return str(cursor.fetchone()[0])


def file_system() -> Iterator[Problem]:
    if connection.vendor != "sqlite":
        return
    kind = file_system_of(Path(connection.settings_dict["NAME"]))
    if kind in NETWORK:
        yield Problem(
            f"The SQLite database is on a network file system ({kind}), where its locks fail and "
            "votes can be lost.",
            "Move var/ to a local disk, or use PostgreSQL (DATABASE_URL).",
        )


def file_system_of(path: Path) -> str:
    """Return the type of the file system of a path; empty where it is not known."""
    if not MOUNTS.exists():
        return ""
    mounts = [
        line.split()[1:3] for line in MOUNTS.read_text().splitlines() if len(line.split()) > 2
    ]
    within = [(point, kind) for point, kind in mounts if path.resolve().is_relative_to(point)]
    return max(within, key=lambda found: len(found[0]), default=("", ""))[1]


def clock() -> Iterator[Problem]:
    skew = database_time() - timezone.now()
    if abs(skew) > MOST_SKEW:
        yield Problem(
            f"The database's clock differs by {skew.total_seconds():.0f} s from this machine's, so "
            "leases and claims expire too early or too late.",
            "Run a time service (chrony, systemd-timesyncd) on both.",
        )


def database_time() -> dt.datetime:
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            cursor.execute("SELECT strftime('%Y-%m-%d %H:%M:%f', 'now')")
            return dt.datetime.fromisoformat(cursor.fetchone()[0]).replace(tzinfo=dt.UTC)
        cursor.execute("SELECT clock_timestamp()")
        found: dt.datetime = cursor.fetchone()[0]
        return found
