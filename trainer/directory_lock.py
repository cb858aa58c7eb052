"""A lock on a directory, for one process at a time."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trainer.errors import TrainerError


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold the directory's lock: two processes on one run would overwrite each other's
    checkpoints. The system releases the lock when the process ends, however it ends.

    Raises TrainerError when another process holds it.
    """
    with (directory / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TrainerError(f"another process is at work in {directory}") from None
        yield
