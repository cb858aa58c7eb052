"""A real engine process on a tiny model, for tests that need one."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parent.parent
#: Seconds that a test waits for something normally fast: a second on an idle machine becomes
#: minutes on a loaded one. Only a failing test waits to the end.
PATIENCE = 300.0


_PORTS = count()


@dataclass(frozen=True)
class RunningEngine:
    """An engine's URL, its model, and the directory of its adapters."""

    url: str
    model: Path
    artifacts: Path
    process: subprocess.Popen[bytes]


def free_port() -> int:
    """Return a port that nothing listens on and that the system does not assign itself.

    Ports that the system assigns (above 32767 on Linux, 49151 elsewhere) may go to an outgoing
    connection before a server binds them. Each process of the suite has its own range.
    """
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw4").removeprefix("gw")
    for number in _PORTS:
        port = 16_000 + 800 * (int(worker) % 5) + (os.getpid() + number) % 800
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no port is free")


def wait_until(
    condition: Callable[[], object], *, seconds: float = PATIENCE, what: str = "condition"
) -> None:
    """Poll until the callable returns true; fail with `what` in the message."""
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s for: {what}"
        pause.wait(0.05)


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).is_success
    except httpx.HTTPError:
        return False


@contextmanager
def run_engine(
    model: Path,
    artifacts: Path,
    *,
    served_name: str,
    port: int | None = None,
    log_name: str = "engine.log",
    store: str = "",
) -> Iterator[RunningEngine]:
    """Run `python -m trainer serve` in float32 until the block ends.

    With `store`, the URL of an object store, `artifacts` is its cache.
    """
    port = free_port() if port is None else port
    command = [sys.executable, "-m", "trainer", "serve", "--model", str(model)]
    root = ["--artifacts", store or str(artifacts), "--artifact-cache", str(artifacts)]
    options = [*root, "--port", str(port), "--dtype", "float32"]
    artifacts.mkdir(parents=True, exist_ok=True)
    with (artifacts / log_name).open("wb") as log:
        process = subprocess.Popen(
            [*command, *options, "--served-model-name", served_name],
            cwd=ROOT,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: answers(f"{url}/health"), what=f"the engine at {url}")
        yield RunningEngine(url, model, artifacts, process)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=PATIENCE)
