"""A real Ray cluster of two nodes on this machine, for tests of the launcher `ray`."""

import os
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.engines import ROOT, free_port, wait_until
from tests.mounts import mounts_allowed, with_directory
from tests.s3 import Server

#: CPUs of each node: a job that takes two runs on the second.
HEAD_CPUS, NODE_CPUS = 1, 2
#: The start of a node that stays in the foreground. By default workers have ports among which are
#: those of free_port.
START = (
    *("start", "--block", "--num-gpus", "0", "--object-store-memory", "80000000"),
    *("--min-worker-port", "0", "--max-worker-port", "0"),
)
#: Ray has time limits for the start of a node, and a busy machine is slower.
STARTS = 3


def ray_command() -> str | None:
    """Return the `ray` that PROSPECT_RAY names. No other is used: a cluster takes most of a small
    machine, and does not start beside many other tests."""
    return os.environ.get("PROSPECT_RAY") or None


@dataclass(frozen=True)
class RayCluster:
    """The dashboard's address, the token, the interpreter that has Ray and our packages, and the
    processes of both nodes. `start` starts another node with this many CPUs."""

    address: str
    python: str
    head: subprocess.Popen[bytes]
    node: subprocess.Popen[bytes]
    start: Callable[[int], subprocess.Popen[bytes]]
    token: str = field(repr=False)

    def environment(self, *, cpus: int, processes: int = 1) -> dict[str, str]:
        """Return the variables of a worker whose runs are trained here by so many processes, each
        of which takes this many CPUs."""
        return {
            "TRAINER_LAUNCHER": "ray",
            "RAY_ADDRESS": self.address,
            "RAY_AUTH_TOKEN": self.token,
            "RAY_PYTHON": self.python,
            "RAY_CPUS": str(cpus),
            "RAY_GPUS": "0",
            "RAY_PROCESSES": str(processes),
        }

    def jobs(self) -> list[dict[str, Any]]:
        """Return what the cluster says of the jobs that it was ever given."""
        headers = {"Authorization": f"Bearer {self.token}"}
        found: list[dict[str, Any]] = httpx.get(
            f"{self.address}/api/jobs/", headers=headers, timeout=60
        ).json()
        return found


@contextmanager
def run_ray_cluster(ray: str, *, artifacts: Path, store: Server) -> Iterator[RayCluster]:
    """Run a head and a second node until the block ends.

    Where mounts are allowed each has a directory of its own at `artifacts`. Both reach the store.
    """
    started: list[subprocess.Popen[bytes]] = []
    directory = Path(tempfile.mkdtemp(prefix="ray-"))  # short: Ray has sockets in it
    token = secrets.token_hex(32)

    def node(cpus: int, *options: str) -> subprocess.Popen[bytes]:
        """Start a node, again if it has ended."""
        for _ in range(STARTS):
            log = directory / f"{len(started)}.log"
            ports = ["--dashboard-agent-listen-port", str(free_port())]
            command = [ray, *START, "--num-cpus", str(cpus), *ports, *options]
            if mounts_allowed():
                own = directory / "artifacts" / str(len(started))
                command = with_directory(own, artifacts, command)
            process = node_start(command, log, store.environment() | security(token))
            started.append(process)
            if is_running(process, log):
                return process
        pytest.fail("Ray does not start; is the machine busy?\n" + log.read_text()[-2000:])

    try:
        gcs, dashboard, client = free_port(), free_port(), free_port()
        ports = [*("--port", str(gcs)), *("--dashboard-port", str(dashboard))]
        places = ["--ray-client-server-port", str(client), "--temp-dir", str(directory)]
        head = node(HEAD_CPUS, "--head", *ports, *places)

        def another(cpus: int) -> subprocess.Popen[bytes]:
            return node(cpus, "--address", f"127.0.0.1:{gcs}")

        python = str(Path(ray).with_name("python"))
        address = f"http://127.0.0.1:{dashboard}"
        yield RayCluster(address, python, head, another(NODE_CPUS), another, token)
    finally:
        for process in reversed(started):
            kill_tree(process)
        shutil.rmtree(directory, ignore_errors=True)


def security(token: str) -> dict[str, str]:
    """Return the variables with which a cluster asks for its token."""
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}


def node_start(
    command: list[str], log: Path, environment: dict[str, str]
) -> subprocess.Popen[bytes]:
    """Start a node of a cluster; everything on it is a descendant of the process."""
    with log.open("wb") as output:
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env={
                **os.environ,
                **environment,
                "RAY_USAGE_STATS_ENABLED": "0",
                "OMP_NUM_THREADS": "1",
            },
            stdout=output,
            stderr=subprocess.STDOUT,
        )


def is_running(node: subprocess.Popen[bytes], log: Path) -> bool:
    """Wait until a node has started; False if it has ended instead."""
    wait_until(
        lambda: node.poll() is not None or b"Ray runtime started" in log.read_bytes(),
        what="a node of Ray",
    )
    return node.poll() is None


def tree(pid: int) -> list[int]:
    """Return a process and all of its descendants."""
    children: dict[int, list[int]] = {}
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            stat = (directory / "stat").read_text()
        except OSError:
            continue
        parent = int(stat.rpartition(")")[2].split()[1])
        children.setdefault(parent, []).append(int(directory.name))
    found = [pid]
    for known in found:  # it grows meanwhile
        found += children.get(known, [])
    return found


def kill_tree(process: subprocess.Popen[bytes]) -> None:
    """Kill everything on a node at once, as when its machine is lost."""
    if process.poll() is not None:
        return
    for pid in tree(process.pid):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.wait()
