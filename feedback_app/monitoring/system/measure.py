"""What the System page shows and a request must not wait for: a worker measures it."""

import os
import time
from dataclasses import dataclass, field
from pathlib import Path

from django.conf import settings
from django.core.cache import cache

from feedback_app.monitoring.readiness import engines
from feedback_app.monitoring.retention.rules import deletable, size_of
from feedback_app.monitoring.watch import free_bytes
from feedback_app.serving.engine.state import engine_memory, engine_models
from feedback_app.serving.engine.stream import EngineError
from feedback_app.training.adapter_import.services import FOLDER as IMPORTED
from feedback_app.training.runs.execution.storage import CHECKPOINTS

ENGINES_KEY, DISK_KEY = "monitoring:system:engines", "monitoring:system:disk"
KEPT_SECONDS = 24 * 3600
#: Directories are walked so often.
DISK_SECONDS = 600.0


@dataclass(frozen=True)
class EngineState:
    """An engine as it was at `at` (Unix time): what it has loaded, and its memory in bytes."""

    base_model: str
    url: str
    at: float
    up: bool
    loaded: tuple[str, ...] = ()
    memory: int | None = None


@dataclass(frozen=True)
class Disk:
    """Bytes of the worker's disk by kind, free ones, and those that the rules would free."""

    at: float
    free: int
    freeable: int
    kinds: dict[str, int] = field(default_factory=dict)


def engines_measure() -> None:
    """Ask every engine what it has loaded, and store that."""
    found = [
        engine_state(base_model, url) for base_model, urls in engines().items() for url in urls
    ]
    cache.set(ENGINES_KEY, found, KEPT_SECONDS)


def engine_state(base_model: str, url: str) -> EngineState:
    try:
        names = engine_models(url)
    except EngineError:
        return EngineState(base_model, url, time.time(), up=False)
    loaded = tuple(sorted(name for name in names if name != base_model))
    return EngineState(base_model, url, time.time(), True, loaded, engine_memory(url))


def engines_measured() -> list[EngineState]:
    found: list[EngineState] = cache.get(ENGINES_KEY) or []
    return found


def disk_is_due() -> bool:
    """Return whether the disk was not measured for DISK_SECONDS."""
    known = disk_measured()
    return known is None or time.time() - known.at > DISK_SECONDS


def disk_measure() -> Disk:
    """Walk the directories of this host, and store what they take."""
    root, logs = Path(settings.ARTIFACT_ROOT), Path(settings.VAR) / "logs"
    checkpoints = sum(bytes_below(path) for path in (root / "runs").glob(f"*/{CHECKPOINTS}"))
    kinds = {
        "Versions": bytes_below(root / "adapters"),
        "Runs": bytes_below(root / "runs") - checkpoints,
        "Checkpoints of runs": checkpoints,
        "Snapshots": bytes_below(root / "snapshots"),
        # of base models, and of versions on the texts of every evaluation
        "Stored log-probabilities": bytes_below(root / "reference") + bytes_below(root / "scores"),
        "Uploaded files": bytes_below(root / "imports") + bytes_below(root / IMPORTED),
        "Logs": bytes_below(logs),
    }
    freeable = size_of(path for entry in deletable() for path in entry.paths)
    found = Disk(time.time(), free_bytes(), freeable, kinds)
    cache.set(DISK_KEY, found, KEPT_SECONDS)
    return found


def disk_measured() -> Disk | None:
    found: Disk | None = cache.get(DISK_KEY)
    return found


def bytes_below(directory: Path) -> int:
    """Return the bytes that the files below a directory take, 0 if there is none."""
    total = 0
    for path, _, names in os.walk(directory):
        for name in names:
            try:
                total += (Path(path) / name).lstat().st_blocks * 512
            except OSError:
                continue  # deleted meanwhile
    return total
