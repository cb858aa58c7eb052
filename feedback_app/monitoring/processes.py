"""Which processes run, and where: each stores a heartbeat in the shared cache.

A process takes a free slot, renews it every few seconds and, when it is gone, leaves it to expire:
the cache can be read by slot, and lists no keys.
"""

import ctypes
import os
import shutil
import socket
import subprocess
import threading
import time
from dataclasses import dataclass, replace

from django.core.cache import cache

from feedback_app.monitoring.heartbeats import BEAT_SECONDS, GONE_SECONDS

#: More processes than any installation has; further ones are not listed.
SLOTS = 256
#: How long a process that is gone is listed.
KEPT_SECONDS = 15 * 60
_SMI_SECONDS = 5


@dataclass(frozen=True)
class Process:
    """A process of the installation. `at` and `since` are Unix times; `queues` and `devices` are
    those of a worker."""

    kind: str
    host: str
    pid: int
    since: float
    at: float
    queues: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()

    @property
    def alive(self) -> bool:
        return time.time() - self.at < GONE_SECONDS

    @property
    def identity(self) -> tuple[str, int, float]:
        return self.host, self.pid, self.since


class ProcessBeat:
    """The heartbeat of this process. `beat` may be called more often than needed.

    With each heartbeat the process also returns freed memory to the system: what one thread freed,
    for example after all have connected to a restarted database, no other thread would use.
    """

    def __init__(
        self, kind: str, *, queues: tuple[str, ...] = (), devices: tuple[str, ...] = ()
    ) -> None:
        now = time.time()
        self._process = Process(kind, socket.gethostname(), os.getpid(), now, now, queues, devices)
        self._slot: int | None = None
        self._next = 0.0

    def beat(self) -> None:
        """Store that the process runs, if that is due."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + BEAT_SECONDS
        self._process = replace(self._process, at=time.time())
        if self._slot is None or not self._own(self._slot):
            self._slot = self._claimed()
        if self._slot is not None:
            cache.set(_key(self._slot), self._process, KEPT_SECONDS)
        trim_heap()

    def forever(self) -> None:
        """Beat from a thread until the process ends."""

        def run() -> None:
            while True:
                self.beat()
                time.sleep(BEAT_SECONDS)

        threading.Thread(target=run, name="process-beat", daemon=True).start()

    def _own(self, slot: int) -> bool:
        found = cache.get(_key(slot))
        return isinstance(found, Process) and found.identity == self._process.identity

    def _claimed(self) -> int | None:
        taken = cache.get_many(map(_key, range(SLOTS)))
        free = (slot for slot in range(SLOTS) if _key(slot) not in taken)
        return next(
            (slot for slot in free if cache.add(_key(slot), self._process, KEPT_SECONDS)), None
        )


def trim_heap() -> None:
    """Return freed memory to the system. With glibc this is malloc_trim, which takes less than a
    millisecond where little is free; elsewhere nothing is done."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(ctypes.c_size_t(0))


def processes() -> list[Process]:
    """Return the processes with a heartbeat in the last KEPT_SECONDS, by kind and host."""
    found = cache.get_many(map(_key, range(SLOTS))).values()
    known = [process for process in found if isinstance(process, Process)]
    return sorted(known, key=lambda each: (each.kind, each.host, each.since))


def devices_here() -> tuple[str, ...]:
    """Return the GPUs of this host, or its processor."""
    if shutil.which("nvidia-smi"):
        try:
            listed = subprocess.run(
                ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"],
                capture_output=True,
                text=True,
                timeout=_SMI_SECONDS,
                check=True,
            )
        except (OSError, subprocess.SubprocessError):
            return ("GPU that nvidia-smi does not report",)
        return tuple(line.strip() for line in listed.stdout.splitlines() if line.strip())
    return (f"CPU, {os.cpu_count() or 1} cores",)


def _key(slot: int) -> str:
    return f"monitoring:process:{slot}"
