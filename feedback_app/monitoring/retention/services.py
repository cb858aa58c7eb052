"""Deleting what the rules allow, by a worker, with its progress in the shared cache.

It can be repeated: what was deleted is not found again. A row says first that files are gone, so
nothing uses them while they go.
"""

import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import uuid4

import structlog
from django.conf import settings
from django.core.cache import cache
from django.db import transaction
from django.utils import timezone

from artifact_store.errors import StoreError
from feedback_app.accounts.audit import audit
from feedback_app.accounts.models import User
from feedback_app.artifacts import artifact_store, tree_discard
from feedback_app.monitoring.retention.rules import (
    ADAPTER,
    Deletable,
    deletable,
    runs_without_checkpoints,
    size_of,
    trials_without_adapter,
    versions_without_files,
)
from feedback_app.training.models import Adapter, Run
from feedback_app.web.errors import Conflict

log = structlog.get_logger(__name__)

KEY = "monitoring:cleanup"
KEPT_SECONDS = 7 * 24 * 3600
#: A cleanup without progress for so long was lost with its worker or with the broker.
LOST_SECONDS = 300.0


@dataclass(frozen=True)
class Cleanup:
    """The last cleanup: how many of how many places are done, and the bytes that were freed."""

    state: str
    at: float
    done: int = 0
    total: int = 0
    freed: int = 0
    # whoever asked for it
    by: int | None = None

    @property
    def active(self) -> bool:
        return self.state != "done" and time.time() - self.at < LOST_SECONDS


def cleanup_last() -> Cleanup | None:
    """Return the cleanup in progress, or the last one of the week."""
    found: Cleanup | None = cache.get(KEY)
    return found


def cleanup_waiting() -> bool:
    """Return whether a cleanup waits for a worker."""
    last = cleanup_last()
    return last is not None and last.active and last.state == "waiting"


def cleanup_request(*, by: User) -> None:
    """Note that a worker is to delete what the rules allow. Raises Conflict if one does.

    A tick sends the message: a request does not wait for the broker.
    """
    before = cleanup_last()
    if before is not None and before.active:
        raise Conflict("Files are being deleted already.")
    cache.set(KEY, Cleanup("waiting", time.time(), by=by.pk), KEPT_SECONDS)


def cleanup_take() -> bool:
    """Do what was requested, if it waits; return whether it did."""
    waiting = cleanup_last()
    if waiting is None or not cleanup_waiting():
        return False
    cleanup_execute(by=User.objects.filter(pk__in=[waiting.by]).first())
    return True


def cleanup_execute(*, by: User | None) -> Cleanup:
    """Delete what the rules allow, and return the result."""
    found = list(deletable())
    state = Cleanup("running", time.time(), total=len(found))
    for entry in found:
        cache.set(KEY, state, KEPT_SECONDS)
        freed = entry_delete(entry, by=by)
        state = replace(state, done=state.done + 1, freed=state.freed + freed, at=time.time())
    state = replace(state, state="done", at=time.time())
    cache.set(KEY, state, KEPT_SECONDS)
    log.info("cleanup_done", places=state.done, freed=state.freed)
    return state


def entry_delete(entry: Deletable, *, by: User | None) -> int:
    """Delete one place; return the bytes that were freed, 0 if it is needed again meanwhile."""
    if entry.adapter is not None:
        return version_files_delete(entry.adapter, entry.paths, by=by)
    if entry.run is not None and entry.rule == "trials":
        return trial_adapter_delete(entry.run, entry.paths)
    if entry.run is not None:
        return checkpoints_delete(entry.run, entry.paths[0])
    if entry.rule == "imported":
        return trees_delete(entry.paths)
    return paths_delete(entry.paths)


def checkpoints_delete(run_id: int, path: Path) -> int:
    """Delete a run's checkpoints, unless it was resumed meanwhile."""
    aside = path.with_name(f".{path.name}.{uuid4().hex}")
    with transaction.atomic():
        ended = runs_without_checkpoints(timezone.now()).select_for_update()
        if ended.filter(pk=run_id).first() is None:
            return 0
        # before the run can be resumed: a trainer that starts finds all of them or none
        try:
            path.rename(aside)
        except FileNotFoundError:
            return 0
    return paths_delete((aside,))


def version_files_delete(adapter_id: int, paths: tuple[Path, ...], *, by: User | None) -> int:
    """Delete the files of a discarded version, unless it was restored meanwhile."""
    with transaction.atomic():
        # restoring it waits for this row, and finds its files gone
        rows = Adapter.objects.select_related("run").select_for_update(of=("self",))
        row = rows.get(pk=adapter_id)
        if not versions_without_files(timezone.now()).filter(pk=row.pk).exists():
            return 0
        if row.deleted_at is None:
            Adapter.objects.filter(pk=row.pk).update(deleted_at=timezone.now())
            audit(project=row.project, actor=by, action="adapter.expire", target=row.name)
    try:
        artifact_store().remove(row.path)
        artifact_store().remove_part(row.run.tree, ADAPTER)
    except StoreError as error:
        log.warning("version_stays_in_the_store", adapter=row.name, why=str(error))
    return paths_delete(paths)


def trial_adapter_delete(run_id: int, paths: tuple[Path, ...]) -> int:
    """Delete the adapter of a trial that was not chosen, unless it was meanwhile."""
    now = timezone.now()
    with transaction.atomic():
        # choosing it waits for this row, and finds its adapter gone
        row = Run.objects.select_for_update(no_key=True).get(pk=run_id)
        if not trials_without_adapter(now).filter(pk=row.pk).exists():
            return 0
        if row.adapter_deleted_at is None:
            Run.objects.filter(pk=row.pk).update(adapter_deleted_at=now)
    try:
        artifact_store().remove_part(row.tree, ADAPTER)
    except StoreError as error:
        log.warning("adapter_stays_in_the_store", run=row.pk, why=str(error))
    return paths_delete(paths)


def trees_delete(paths: tuple[Path, ...]) -> int:
    """Delete trees here and in the artifact store; return the bytes that were freed here."""
    size = size_of(paths)
    for path in paths:
        tree_discard(path.relative_to(settings.ARTIFACT_ROOT).as_posix())
    return size


def paths_delete(paths: tuple[Path, ...]) -> int:
    """Delete files and directories; return the bytes that were freed."""
    size = size_of(paths)
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    return size
