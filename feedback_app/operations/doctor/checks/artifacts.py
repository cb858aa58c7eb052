"""Checks of the files that rows name."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from django.conf import settings
from django.db.models import F, Q

from artifact_store.base import ArtifactStore
from artifact_store.errors import StoreError, StoreUnreachable
from feedback_app.artifacts import artifact_store
from feedback_app.operations.doctor.findings import Problem, listed
from feedback_app.training.models import Adapter
from feedback_app.training.registry.files import BadAdapter, adapter_fetch

#: A run's checkpoints and the next adapter need about this much.
LEAST_FREE_BYTES = 2 * 2**30


def root_writable() -> Iterator[Problem]:
    root = Path(settings.ARTIFACT_ROOT)
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root) as file:
            file.write(b"probe")
    except OSError as error:
        yield Problem(
            f"{root} cannot be written ({error.strerror}): runs fail.",
            "Change its owner or permissions, or set ARTIFACT_ROOT.",
        )


def store_answers() -> Iterator[Problem]:
    try:
        artifact_store().check()
    except StoreError as error:
        yield Problem(
            f"{error}: runs and versions cannot be stored or fetched.",
            "Compare ARTIFACT_ROOT, AWS_ENDPOINT_URL and the credentials, and start the store.",
        )


def space() -> Iterator[Problem]:
    paths = [path for path in (Path(settings.ARTIFACT_ROOT), Path(settings.VAR)) if path.exists()]
    for path in {path.stat().st_dev: path for path in paths}.values():
        if (free := shutil.disk_usage(path).free) < LEAST_FREE_BYTES:
            yield Problem(
                f"The disk of {path} has {free / 2**30:.1f} GiB left.",
                "Free some space: logs, old backups, checkpoints of failed runs in runs/.",
            )


def live_adapters_intact() -> Iterator[Problem]:
    live = Q(name=F("project__live_version")) | Q(traffic_splits__status="running")
    for adapter in Adapter.objects.filter(live).distinct().order_by("pk"):
        try:
            adapter_fetch(adapter)
        except StoreUnreachable:
            return  # `artifact_store` says so
        except BadAdapter as error:
            yield Problem(
                f"A version that answers people is damaged on disk: {error}.",
                "Release another version, or restore its directory from a backup.",
            )


def adapters_present() -> Iterator[Problem]:
    usable = Adapter.objects.filter(discarded_at=None, project__deletion=None).order_by("pk")
    store = artifact_store()
    try:
        missing = [a.name for a in usable if not adapter_present(store, a)]
    except StoreError:
        return  # `artifact_store` says so
    if missing:
        root = settings.ARTIFACT_URL or settings.ARTIFACT_ROOT
        yield Problem(
            f"Adapters without files under {root}: {listed(missing)}.",
            "Mount the right ARTIFACT_ROOT, restore them from a backup, or discard them.",
        )


def adapter_present(store: ArtifactStore, adapter: Adapter) -> bool:
    """Return whether the files of an adapter are where every host finds them."""
    if store.remote:
        return store.has(adapter.path)
    return (adapter.directory / "manifest.json").exists()
