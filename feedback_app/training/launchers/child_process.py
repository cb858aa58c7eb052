"""Launcher `process`: the trainer as one child process of the worker.

A separate process: CUDA does not survive a fork, a crash of the trainer must not end the worker,
and all of its memory is released.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog
from django.conf import settings

from feedback_app.training.launchers.base import END_SECONDS, OUTPUT, Job, output_end

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Child:
    job: Job
    process: subprocess.Popen[bytes]


class ProcessLauncher:
    """Runs jobs as child processes, which end with the worker."""

    elsewhere = False

    def __init__(self) -> None:
        self._children: dict[str, Child] = {}

    def submit(self, job: Job) -> str:
        command = [sys.executable, "-m", "trainer", *job.arguments, "--stop-with-parent"]
        process = child_start(job, command)
        self._children[job.name] = Child(job, process)
        return job.name

    def poll(self, job_id: str) -> int | None:
        return self._children[job_id].process.poll()

    def cancel(self, job_id: str) -> None:
        process = self._children[job_id].process
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)

    def end(self, job_id: str, *, seconds: float = END_SECONDS) -> None:
        self.cancel(job_id)
        process = self._children[job_id].process
        try:
            process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def logs(self, job_id: str) -> str:
        return output_end(self._children[job_id].job.directory)


def child_start(
    job: Job, command: Sequence[str], *, stdin: int = subprocess.DEVNULL, cwd: Path | None = None
) -> subprocess.Popen[bytes]:
    """Start a process that writes its output to the job's directory.

    It stays in the worker's process group: a signal to the group reaches it (Compose, the
    supervisor), so that it writes a checkpoint while the worker waits for it.
    """
    with (job.directory / OUTPUT).open("ab") as output:
        process = subprocess.Popen(
            command,
            stdin=stdin,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=cwd or settings.BASE_DIR,
            env={**os.environ, "TOKENIZERS_PARALLELISM": "false", **job.environment},
        )
    log.info("trainer_started", job=job.name, command=job.command, pid=process.pid)
    return process
