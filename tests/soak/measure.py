"""Memory, files and connections of long-lived processes."""

import statistics
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.soak.fault_injection import Parts

LONG_LIVED = ("web", "engine", "worker-default", "worker-gpu", "beat", "valkey")
SAMPLES = 7
SAMPLE_SECONDS = 1.0


@dataclass(frozen=True)
class Figures:
    """Medians of one process."""

    pid: int
    began: float
    #: resident memory in bytes
    memory: int
    threads: int
    descriptors: int
    #: regular files that are open
    files: int
    sockets: int

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def processes(parts: Parts) -> dict[str, psutil.Process]:
    """Return the long-lived processes by name; those of the web are numbered."""
    found = {}
    for name in LONG_LIVED:
        for number, process in enumerate(parts.tree(name)):
            with suppress(psutil.Error):
                if "trainer" in process.cmdline() and name == "worker-gpu":
                    continue  # a run's
                found[f"{name}-{number}" if number else name] = process
    return found


def figures(parts: Parts) -> dict[str, Figures]:
    """Measure every process several times."""
    rows: dict[str, list[Figures]] = {}
    for _ in range(SAMPLES):
        for name, process in processes(parts).items():
            with suppress(psutil.Error, FileNotFoundError):
                found = one(process)
                rows.setdefault(name, []).append(found)
        time.sleep(SAMPLE_SECONDS)
    return {name: median(of) for name, of in rows.items()}


def memory_of(parts: Parts) -> dict[str, float]:
    """Return the resident memory of every process now, in MB."""
    found = {}
    for name, process in processes(parts).items():
        with suppress(psutil.Error):
            found[f"{name} {process.pid}"] = round(process.memory_info().rss / 1e6, 1)
    return found


def one(process: psutil.Process) -> Figures:
    return Figures(
        pid=process.pid,
        began=process.create_time(),
        memory=process.memory_info().rss,
        threads=process.num_threads(),
        descriptors=process.num_fds(),
        files=len(process.open_files()),
        sockets=open_sockets(process),
    )


def open_sockets(process: psutil.Process) -> int:
    """Return the number of sockets, with those whose connection was reset.

    A pool keeps a broken connection until it is used again. The kernel's tables, which psutil
    reads, list it no longer, so that it would be taken for another kind of descriptor.
    """
    found = 0
    for entry in Path(f"/proc/{process.pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            found += str(entry.readlink()).startswith("socket:")
    return found


def median(rows: list[Figures]) -> Figures:
    middle: Callable[[str], int] = lambda name: int(  # noqa: E731
        statistics.median(getattr(row, name) for row in rows)
    )
    names = ("memory", "threads", "descriptors", "files", "sockets")
    last = rows[-1]
    return Figures(pid=last.pid, began=last.began, **{name: middle(name) for name in names})


def same(before: Figures, after: Figures) -> bool:
    """Return whether both are of one process, which was not restarted between."""
    return (before.pid, before.began) == (after.pid, after.began)
