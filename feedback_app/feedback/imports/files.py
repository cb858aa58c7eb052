"""Uploaded files of imports: written by the host that gets them, fetched by the worker.

Where ARTIFACT_ROOT is a directory, all hosts see the file. With an object store each upload is a
tree of its own, `imports/ID`, until the import has ended. Pages of other hosts read the first bytes
there: a request does not wait for 2 GB. Of a Parquet file, which is read from its end, the tree has
the first rows as JSONL.
"""

import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import structlog

from artifact_store.cache import marker_of
from artifact_store.errors import StoreError
from feedback_app.artifacts import artifact_store
from feedback_app.feedback.imports.opening import is_parquet, open_path
from feedback_app.feedback.imports.readers import Unreadable
from feedback_app.feedback.models import ImportJob
from feedback_app.web.errors import UserError

log = structlog.get_logger(__name__)

FOLDER, NAME, FIRST_ROWS = "imports", "file", "first-rows.jsonl"
#: The most bytes that a page reads of a file that is on another host.
SHOWN_BYTES = 32_000_000
#: How long a file without an open import is left alone: its upload may not have ended.
COPY_SECONDS = 24 * 3600.0


def file_place() -> Path:
    """Return a new path for an uploaded file, in a directory that exists. No part of it is chosen
    by the sender."""
    store = artifact_store()
    path = store.path(f"{FOLDER}/{uuid.uuid4().hex}")
    path = path / NAME if store.remote else path
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def tree_of(path: Path) -> str | None:
    """Return the tree of an uploaded file; None for one that the object store does not have: named
    on the command line, or uploaded before there was a store."""
    store = artifact_store()
    if not store.remote or not path.is_relative_to(store.local):
        return None
    parts = path.relative_to(store.local).parts
    return "/".join(parts[:2]) if len(parts) == 3 and parts[0] == FOLDER else None


def file_push(path: Path) -> None:
    """Make an uploaded file readable on other hosts. Raises UserError if the store is away."""
    tree = tree_of(path)
    if tree is None:
        return
    try:
        artifact_store().push(tree)
    except StoreError as error:
        raise UserError(
            f"The file cannot be stored now: {error}. Upload it again later."
        ) from error


def file_fetch(path: Path) -> Path:
    """Return the path of a file after bringing it to this host. Raises StoreError."""
    tree = tree_of(path)
    if tree is not None:
        artifact_store().fetch(tree)
    return path


@contextmanager
def file_shown(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for a page that reads its first rows. Raises Unreadable."""
    try:
        tree = None if path.exists() else tree_of(path)
        with open_path(path) if tree is None else file_start(path, tree) as file:
            yield file
    except StoreError as error:
        raise Unreadable(f"The file cannot be read now: {error}.") from error


def file_start(path: Path, tree: str) -> IO[bytes]:
    """Open the first rows of a file that another host has uploaded. Raises StoreError and
    Unreadable."""
    store = artifact_store()
    try:
        return store.opened(tree, FIRST_ROWS, most=SHOWN_BYTES)
    except FileNotFoundError:
        pass  # it is no Parquet, or was not uploaded for a page
    try:
        file = store.opened(tree, NAME, most=SHOWN_BYTES)
    except FileNotFoundError as error:
        raise Unreadable("The file is not stored any more: upload it again.") from error
    if not is_parquet(file):
        return file
    file.close()
    return open_path(file_fetch(path))


def copies_trim() -> None:
    """Delete the files on this host that no open import needs any more: another host has ended it,
    or it never began."""
    store = artifact_store()
    if not store.remote:
        return
    before = time.time() - COPY_SECONDS
    found = [each for each in store.path(FOLDER).glob("[!.]*/") if each.stat().st_mtime < before]
    paths = [str(directory / NAME) for directory in found]
    open_jobs = ImportJob.objects.filter(path__in=paths, status__in=ImportJob.OPEN) if paths else []
    needed = {job.path for job in open_jobs}
    for path in paths:
        if path not in needed:
            copy_remove(Path(path))


def copy_remove(path: Path) -> None:
    """Delete an uploaded file from this host."""
    path.unlink(missing_ok=True)
    if tree_of(path) is not None:
        marker_of(path.parent).unlink(missing_ok=True)
        shutil.rmtree(path.parent, ignore_errors=True)


def file_remove(path: Path) -> None:
    """Delete an uploaded file from this host and the store. A store that is away keeps it."""
    copy_remove(path)
    tree = tree_of(path)
    if tree is None:
        return
    try:
        artifact_store().remove(tree)
    except StoreError as error:
        log.warning("import_file_stays_in_the_store", tree=tree, why=str(error))
