"""Launcher `accelerate`: a run on all devices of the worker by `accelerate launch`.

The worker is three processes away from the trainer's: `accelerate launch` starts each in a session
of its own. So they are stopped by a pipe that all of them have as standard input
(trainer/signals.py), and name their exit codes in files.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass

from django.conf import settings

from feedback_app.training.launchers.base import (
    CANCELLED,
    DONE,
    END_SECONDS,
    FAILED,
    NOT_WRITTEN,
    REFUSED,
    Job,
    LaunchError,
    output_end,
)
from feedback_app.training.launchers.child_process import ProcessLauncher, child_start
from feedback_app.training.launchers.exit_codes import exit_codes_directory, exit_codes_read

#: How long `accelerate launch` gives its processes after SIGTERM before it kills them; and some
#: seconds more.
AGENT_SECONDS = 40.0


@dataclass(frozen=True)
class Group:
    job: Job
    processes: int
    agent: subprocess.Popen[bytes]  # `accelerate launch`


class AccelerateLauncher:
    """Runs training in several processes, one for each device, and everything else in one."""

    elsewhere = False

    def __init__(self) -> None:
        self._single = ProcessLauncher()
        self._groups: dict[str, Group] = {}

    def submit(self, job: Job) -> str:
        processes = process_count()
        if job.command != "train" or processes == 1:
            return self._single.submit(job)
        exit_codes = exit_codes_directory(job.directory)
        command = [
            *(sys.executable, "-m", "accelerate.commands.launch"),
            # without devices the trainer uses gloo; --cpu would need MPI for several processes
            "--multi_gpu",
            f"--num_processes={processes}",
            "--num_machines=1",
            "--main_process_port=0",  # any that is free
            "--mixed_precision=no",
            "--dynamo_backend=no",
            f"--num_cpu_threads_per_process={threads_each(processes)}",
            *("-m", "trainer", *job.arguments),
            *("--stop-with-input", "--stop-with-parent", "--exit-codes", str(exit_codes)),
        ]
        agent = child_start(job, command, stdin=subprocess.PIPE)
        self._groups[job.name] = Group(job, processes, agent)
        return job.name

    def poll(self, job_id: str) -> int | None:
        group = self._groups.get(job_id)
        if group is None:
            return self._single.poll(job_id)
        code = group.agent.poll()
        return None if code is None else exit_code(group, code)

    def cancel(self, job_id: str) -> None:
        group = self._groups.get(job_id)
        if group is None:
            self._single.cancel(job_id)
        elif group.agent.stdin is not None:
            # nothing was written to it, so that nothing can be refused; a second call does nothing
            group.agent.stdin.close()

    def end(self, job_id: str, *, seconds: float = END_SECONDS) -> None:
        group = self._groups.get(job_id)
        if group is None:
            self._single.end(job_id, seconds=seconds)
            return
        self.cancel(job_id)
        with contextlib.suppress(subprocess.TimeoutExpired):
            group.agent.wait(timeout=seconds)
            return
        # it kills its processes, each with its session, and then ends
        group.agent.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            group.agent.wait(timeout=AGENT_SECONDS)
            return
        group.agent.kill()
        group.agent.wait()

    def logs(self, job_id: str) -> str:
        group = self._groups.get(job_id)
        return self._single.logs(job_id) if group is None else output_end(group.job.directory)


def exit_code(group: Group, code: int) -> int:
    """Return the exit code of a group whose `accelerate launch` ended with `code`.

    A process that is refused or fails ends the others, which may report that they were cancelled.
    """
    if code == DONE:
        return DONE
    found = exit_codes_read(group.job.directory)
    for final in (REFUSED, FAILED, NOT_WRITTEN):
        if final in found:
            return final
    if found.count(CANCELLED) == group.processes:
        return CANCELLED
    # cancelled before every process could report it
    asked = group.agent.stdin is not None and group.agent.stdin.closed
    return CANCELLED if asked else code


def process_count() -> int:
    """Return how many processes train: TRAINER_PROCESSES, or one for each GPU of this worker.

    Raises LaunchError where neither is known.
    """
    count = settings.TRAINER_PROCESSES or gpu_count()
    if not count:
        raise LaunchError(
            "TRAINER_LAUNCHER is accelerate, and this worker has no GPU: set TRAINER_PROCESSES to "
            "the number of processes that train on its CPU, or TRAINER_LAUNCHER to process"
        )
    return int(count)


def gpu_count() -> int:
    """Return the number of GPUs that CUDA_VISIBLE_DEVICES names, else those of this machine."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        names = [name.strip() for name in visible.split(",")]
        # CUDA ignores what follows an invalid name
        valid = [name for name in names if name and not name.startswith("-")]
        return len(valid)
    program = shutil.which("nvidia-smi")
    if program is None:
        return 0
    try:
        listed = subprocess.run(
            [program, "--list-gpus"], capture_output=True, text=True, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return sum(line.startswith("GPU ") for line in listed.stdout.splitlines())


def threads_each(processes: int) -> int:
    """Return the threads of each process: OMP_NUM_THREADS, or an equal share of the cores."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    if given.isdecimal() and int(given):
        return int(given)
    return max(1, (os.cpu_count() or 1) // processes)
