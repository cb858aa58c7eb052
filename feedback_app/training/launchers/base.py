"""The protocol of launchers: who starts `python -m trainer`, stops it and reads its output.

The run's sequence (training/runs/execution) knows this module only. A job reads and writes its
directory; its exit codes are those of the trainer.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

# exit codes of `python -m trainer` (docs/architecture.md, the trainer's contract)
DONE, CANCELLED, REFUSED, FAILED, NOT_WRITTEN = 0, 3, 4, 5, 6

#: How long a job may take to write its checkpoint before it is killed.
END_SECONDS = 30.0
#: Standard output and error of a job, in its directory, over all attempts.
OUTPUT = "trainer.log"
#: How much of the output `logs` returns, in bytes.
LOGS_BYTES = 16_384


class LaunchError(Exception):
    """The job cannot be started here: the message says what to change."""


@dataclass(frozen=True)
class Job:
    """One command of the trainer. `name` differs between attempts; `nice` is its niceness.

    What a job on another host needs of the artifact store: the tree that the directory is (a folder
    of), the generation that it writes, and the trees that it reads. Without them it runs here.
    """

    name: str
    command: Literal["train", "adopt", "evaluate", "influence"]
    directory: Path
    nice: int = 0
    environment: Mapping[str, str] = field(default_factory=dict)
    tree: str = ""
    generation: int = 0
    reads: tuple[str, ...] = ()

    @property
    def arguments(self) -> list[str]:
        """Return the arguments of `python -m trainer`."""
        return [self.command, str(self.directory), "--nice", str(self.nice)]


class Launcher(Protocol):
    """Starts jobs of one worker. When the worker is killed, its jobs end as after `cancel`, or are
    ended by the next `submit` of the same run."""

    @property
    def elsewhere(self) -> bool:
        """Whether its jobs share no file system with this host: they bring the job's tree from the
        artifact store and write to it, and the directory here gets their events only."""

    def submit(self, job: Job) -> str:
        """Start the job and return its id. Raises LaunchError."""

    def poll(self, job_id: str) -> int | None:
        """Return the exit code, negative for a signal; None while the job runs."""

    def cancel(self, job_id: str) -> None:
        """Ask the job to write a checkpoint and end; it ends with CANCELLED, at its next step."""

    def end(self, job_id: str, *, seconds: float = END_SECONDS) -> None:
        """Cancel the job, kill it after `seconds`, and return when nothing of it runs any more."""

    def logs(self, job_id: str) -> str:
        """Return the end of what the job printed."""


def output_end(directory: Path) -> str:
    """Return the end of the output of the jobs in a directory."""
    path = directory / OUTPUT
    if not path.exists():
        return ""
    with path.open("rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - LOGS_BYTES))
        return file.read().decode(errors="replace")
