"""Importing a version: its files are stored, and a run has a worker verify and judge it.

The run has no training. Its snapshot holds the test examples that the gate compares versions on,
and nothing that the version could have learned from.
"""

import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import IO

import structlog
from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import Max

from artifact_store.errors import StoreError
from feedback_app.accounts.audit import audit
from feedback_app.accounts.models import User
from feedback_app.artifacts import artifact_store, tree_discard
from feedback_app.feedback.models import Project
from feedback_app.training.adapter_import.archive import archive_unpack, directory_take
from feedback_app.training.adapter_import.checks import ForeignAdapter, adapter_checked
from feedback_app.training.models import Run, Snapshot
from feedback_app.training.runs.config import LIMITS, RunConfig
from feedback_app.training.runs.planning.objections import gate_objection
from feedback_app.training.snapshots.caps import people_cap, snapshot_totals
from feedback_app.training.snapshots.services import (
    snapshot_freeze,
    snapshot_keep_test,
    snapshot_queue,
    taken_at_once,
)
from feedback_app.web.errors import UserError
from feedback_app.web.log_context import request_id

log = structlog.get_logger(__name__)

#: The folder of the artifact store for files that no worker has taken over yet.
FOLDER = "imported"


def upload_limit() -> int:
    """Return the most bytes of an adapter's files."""
    return int(settings.ADAPTER_UPLOAD_MB) * 1_000_000


def import_archive(*, project: Project, by: User | None, upload: IO[bytes]) -> Run:
    """Import the adapter in a ZIP archive. Raises UserError with what to do."""
    return _import(
        project, by, lambda directory: archive_unpack(upload, directory, limit=upload_limit())
    )


def import_directory(*, project: Project, by: User | None, source: Path) -> Run:
    """Import the adapter in a directory of this host, however large. Raises UserError with what
    to do."""
    return _import(
        project, by, lambda directory: directory_take(source, directory, limit=sys.maxsize)
    )


def _import(project: Project, by: User | None, take: Callable[[Path], None]) -> Run:
    tree = f"{FOLDER}/{uuid.uuid4().hex}"
    directory = artifact_store().path(tree)
    directory.mkdir(parents=True)
    try:
        take(directory)
        found = adapter_checked(directory, base_model=project.base_model)
        artifact_store().push(tree)
        return run_of_import(project=project, by=by, tree=tree, found=found)
    except StoreError as error:
        tree_discard(tree)
        raise UserError(f"The files cannot be stored now: {error}.") from error
    except BaseException:
        tree_discard(tree)
        raise


def run_of_import(*, project: Project, by: User | None, tree: str, found: ForeignAdapter) -> Run:
    """Queue the run that verifies and judges the files in `tree`."""
    try:
        with transaction.atomic():
            project = Project.objects.select_for_update(no_key=True).get(pk=project.pk)
            last = project.runs.aggregate(last=Max("number"))["last"] or 0
            run = Run.objects.create(
                project=project,
                number=last + 1,
                snapshot=gate_snapshot(project),
                config=config_of(found) | {"imported": tree},
                trigger=Run.Trigger.IMPORTED,
                requested_by=by,
                request_id=request_id(),
            )
            audit(project=project, actor=by, action="adapter.import", target=str(run))
    except IntegrityError as error:
        raise UserError("Another run is in progress: wait for its end, then import.") from error
    log.info("adapter_import_requested", run=run.pk, number=run.number, project=project.slug)
    return run


def gate_snapshot(project: Project) -> Snapshot:
    """Freeze the test examples; of a large project a worker does. Raises UserError if the gate
    could compare nothing on them."""
    if not taken_at_once(project):
        return snapshot_queue(project)
    cap = people_cap(project)
    totals = snapshot_totals(project, cap)
    if objection := gate_objection(totals):
        raise UserError(objection)
    snapshot = snapshot_freeze(project=project, cap=cap, totals=totals)
    snapshot_keep_test(snapshot)
    return snapshot


def config_of(found: ForeignAdapter) -> dict[str, object]:
    """Return the settings that the run stores: of the adapter, else the defaults."""
    low, high = LIMITS["lora_alpha"]
    whole = int(found.alpha) == found.alpha and low <= found.alpha <= high
    alpha = int(found.alpha) if whole else RunConfig.lora_alpha
    config = RunConfig(lora_r=found.rank, lora_alpha=alpha, use_rslora=found.rslora)
    return config.as_json()
