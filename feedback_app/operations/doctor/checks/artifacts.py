"""Checks of the files that rows name."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from django.conf import settings
from django.db.models import F, Q

from feedback_app.operations.doctor.findings import Problem, listed
from feedback_app.training.models import Adapter
from feedback_app.training.registry.files import BadAdapter, manifest_check

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
            manifest_check(adapter.directory, name=adapter.name)
        except BadAdapter as error:
            yield Problem(
                f"A version that answers people is damaged on disk: {error}.",
                "Release another version, or restore its directory from a backup.",
            )


def adapters_present() -> Iterator[Problem]:
    usable = Adapter.objects.filter(discarded_at=None).order_by("pk")
    missing = [a.name for a in usable if not (a.directory / "manifest.json").exists()]
    if missing:
        yield Problem(
            f"Adapters without files under {settings.ARTIFACT_ROOT}: {listed(missing)}.",
            "Mount the right ARTIFACT_ROOT, restore them from a backup, or discard them.",
        )
