"""Making and restoring a backup."""

import contextlib
import errno
import shutil
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from cryptography.fernet import InvalidToken
from django.apps import apps
from django.conf import settings
from django.contrib.auth.models import Permission
from django.contrib.contenttypes.models import ContentType
from django.core.management import call_command
from django.db import DatabaseError, connection, transaction
from django.db.models import Value
from django.db.models.functions import Replace
from django.utils import timezone

from artifact_store.errors import StoreError
from feedback_app.accounts.sealing import seal, unseal
from feedback_app.accounts.second_factor import factors_unreadable
from feedback_app.db.next_ids import next_ids_read, next_ids_write
from feedback_app.db.read_snapshot import read_snapshot
from feedback_app.feedback.models import ImportJob
from feedback_app.operations.backup.artifacts import (
    adapters_and_runs_copy,
    artifacts_named,
    artifacts_remove,
    artifacts_require_none,
    artifacts_restore,
    imports_copy,
)
from feedback_app.operations.backup.manifest import (
    BackedUpFile,
    BackupError,
    Manifest,
    Say,
    files_verify,
    manifest_read,
    manifest_write,
    megabytes,
)
from feedback_app.operations.backup.schema import (
    database_require_empty,
    migrations_applied,
    migrations_pending,
    tables_prepare,
)
from feedback_app.operations.backup.tables import Model, file_of, table_read, table_write
from feedback_app.training.models import Adapter
from feedback_app.training.registry.files import BadAdapter, manifest_check

PROBE = "Prospect"


def tables_all() -> list[Model]:
    """Return the models of all tables, also those of many-to-many relations."""
    return list(apps.get_models(include_auto_created=True))


def backup_make(*, directory: Path, say: Say) -> Manifest:
    """Write a backup of the database and its artifacts into an empty or new directory.

    The database is read as of one moment. Artifacts are copied afterwards: the files of an adapter
    exist before its row and never change. After a BackupError nothing is left in the directory.
    """
    started = time.monotonic()
    if pending := migrations_pending():
        raise BackupError(
            f"The database is older than the code ({len(pending)} migrations are pending, from "
            f"{pending[0]} on). Run `manage.py migrate`, or make the backup with that version."
        )
    directory_prepare(directory)
    manifest = Manifest(
        prospect=version("prospect"),
        database=connection.vendor,
        created=timezone.now().isoformat(),
        artifact_root=str(settings.ARTIFACT_ROOT),
        migrations=migrations_applied(),
        sealed_probe=seal(PROBE),
    )
    with errors_explained(directory, "write the backup"), removed_on_error(directory):
        (directory / "database").mkdir()
        tables = tables_all()
        with read_snapshot():
            named = artifacts_named()
            imports_copy(named, directory, manifest)
            for model in tables:
                table = model._meta.db_table
                path = directory / file_of(table)
                manifest.rows[table] = table_write(model, path, say)
                manifest.files[file_of(table)] = BackedUpFile.of(path)
                if manifest.rows[table]:
                    say(f"  {table}: {manifest.rows[table]:,} rows")
            manifest.next_ids = next_ids_read(tables)
        adapters_and_runs_copy(named, directory, manifest, say)
        manifest_write(directory, manifest)
    rows = sum(manifest.rows.values())
    say(
        f"Backed up {rows:,} rows and {len(manifest.files)} files, {megabytes(manifest.bytes)}, "
        f"in {time.monotonic() - started:.1f} s: {directory}"
    )
    return manifest


def backup_restore(*, directory: Path, say: Say, other_key: bool = False) -> Manifest:
    """Fill an empty installation from a backup.

    Everything is verified before anything is changed, and rows and artifacts are kept together or
    not at all. With `other_key`, secrets that this SECRET_KEY cannot decrypt are accepted, and
    `say` is told whom that keeps from signing in. Raises BackupError.
    """
    started = time.monotonic()
    manifest = manifest_read(directory)
    files_verify(directory, manifest, say)
    key_check(manifest, other_key=other_key)
    database_require_empty(tables_all())
    artifacts_require_none(manifest)
    with errors_explained(directory, "restore the backup"):
        tables = {model._meta.db_table: model for model in tables_prepare(manifest)}
        if unknown := manifest.rows.keys() - tables.keys():
            raise BackupError(f"The backup has unknown tables: {', '.join(sorted(unknown))}.")
        try:
            with transaction.atomic():
                rows_restore(directory, manifest, tables, say)
                artifacts_restore(directory, manifest, say)
        except BaseException:
            artifacts_remove(manifest)
            raise
        if pending := migrations_pending():
            say(f"  {len(pending)} migrations of this version")
            call_command("migrate", verbosity=0, interactive=False)
    import_paths_move(manifest)
    adapters_verify(manifest)
    if other_key:
        factors_report(say)
    say(
        f"Restored {sum(manifest.rows.values()):,} rows and {len(manifest.files)} files "
        f"in {time.monotonic() - started:.1f} s."
    )
    return manifest


def rows_restore(directory: Path, manifest: Manifest, tables: dict[str, Model], say: Say) -> None:
    """Insert the rows of all tables and check their relations, in the caller's transaction."""
    # a migrated database has these already, perhaps with other ids
    Permission.objects.all().delete()
    ContentType.objects.all().delete()
    ContentType.objects.clear_cache()
    for table, expected in manifest.rows.items():
        count = table_read(tables[table], directory / file_of(table), say)
        if count != expected:
            raise BackupError(f"{table} has {count} rows in the backup, not {expected}.")
        if count:
            say(f"  {table}: {count:,} rows")
    next_ids_write(tables.values(), manifest.next_ids)
    # before the artifacts are copied, instead of at the end of the transaction
    connection.check_constraints()


def import_paths_move(manifest: Manifest) -> None:
    """Let imports find their files if the artifact root is another directory now."""
    before, now = manifest.artifact_root, str(settings.ARTIFACT_ROOT)
    if before != now:
        ImportJob.objects.filter(uploaded=True, path__startswith=f"{before}/").update(
            path=Replace("path", Value(f"{before}/"), Value(f"{now}/"))
        )


def adapters_verify(manifest: Manifest) -> None:
    """Raise BackupError if an adapter that the backup contains is not whole in its new place."""
    faults = []
    for adapter in Adapter.objects.filter(deleted_at=None).order_by("pk"):
        try:
            manifest_check(adapter.directory, name=adapter.name)
        except BadAdapter as error:
            faults.append(f"adapter {error}")
    if new := [fault for fault in faults if fault not in manifest.missing]:
        raise BackupError(f"Restored, but {'; '.join(new)}. Check the disk of ARTIFACT_ROOT.")


def key_check(manifest: Manifest, *, other_key: bool) -> None:
    """Raise BackupError if SECRET_KEY is not the one that encrypted the secrets in the backup."""
    with contextlib.suppress(InvalidToken):
        if unseal(manifest.sealed_probe) == PROBE:
            return
    if not other_key:
        raise BackupError(
            "SECRET_KEY is another one than when the backup was made, so second factors, webhook "
            "secrets and API keys of judge models could not be read. Set SECRET_KEY to the old key "
            "(or add the old key to SECRET_KEY_FALLBACKS), or restore with --other-key and set "
            "them up again."
        )


def factors_report(say: Say) -> None:
    """Say how many people cannot sign in because their second factors cannot be decrypted."""
    if people := factors_unreadable().order_by().values("user").distinct().count():
        say(
            f"  {people} people cannot sign in: their second factors cannot be decrypted. "
            "`manage.py forget_factors --unreadable` removes these; then passwords are enough, and "
            "they can set up new ones."
        )


def directory_prepare(directory: Path) -> None:
    """Create the directory, or check that it is empty. Raises BackupError."""
    try:
        # it contains everything that people wrote, and hashes of passwords
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(directory.iterdir()):
            raise BackupError(f"{directory} is not empty. Name a new directory for each backup.")
        (directory / "database").mkdir()
        (directory / "database").rmdir()
    except OSError as error:
        raise BackupError(
            f"{directory} cannot be written ({error.strerror}). Name another directory, or change "
            "its permissions."
        ) from error


@contextlib.contextmanager
def removed_on_error(directory: Path) -> Iterator[None]:
    """Empty the directory if the block fails: what is in it is no backup."""
    try:
        yield
    except BaseException:
        for entry in directory.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def errors_explained(directory: Path, action: str) -> Iterator[None]:
    """Turn errors of disk and database into BackupErrors that say what to do."""
    try:
        yield
    except StoreError as error:
        raise BackupError(f"Could not {action}, and nothing was kept: {error}.") from error
    except OSError as error:
        where = error.filename or directory
        advice = "Check the disk and the permissions, then try again"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            advice = "The disk is full: free some space or name a directory on another disk"
        raise BackupError(
            f"Could not {action}, and nothing was kept: {where}: {error.strerror}. {advice}."
        ) from error
    except DatabaseError as error:
        raise BackupError(
            f"Could not {action}, and nothing was kept: the database reported: "
            f"{' '.join(str(error).split())}."
        ) from error
