"""The lock on a var/ directory, held by one stack at a time, and the record of that stack."""

import fcntl
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from feedback_app.localstack import orphan_reaper
from feedback_app.localstack.procfile import StackError

POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Running:
    """The addresses of a running stack."""

    url: str
    engine_url: str
    redis_url: str
    pid: int


def running(var: Path) -> Running | None:
    """Return the stack that runs on this var/ directory and is ready, or None."""
    try:
        record = json.loads(record_path(var).read_text())
        with (var / "stack.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return Running(**record)
    except (OSError, ValueError):
        return None
    return None  # not locked: the record is of a stack that was killed


def acquire(var: Path, say: Callable[[str], None]) -> IO[str]:
    """Lock var/ for this stack; the system unlocks it when all holders have ended.

    Waits for a stack that is ending. Raises StackError if another stack runs there.
    """
    lock = (var / "stack.lock").open("a")
    deadline = time.monotonic() + orphan_reaper.GRACE_SECONDS + 10
    waited = False
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            other = running(var)
            if (other is not None and exists(other.pid)) or time.monotonic() > deadline:
                lock.close()
                where = f" at {other.url} (process {other.pid})" if other else ""
                raise StackError(
                    f"Prospect already runs on {var}{where}: use it, stop it, or choose another "
                    "PROSPECT_VAR."
                ) from error
            if not waited:
                say("Another start on the same directory is in progress: waiting for it …")
                waited = True
            time.sleep(POLL_SECONDS)
        else:
            return lock


def exists(pid: int) -> bool:
    """Return whether the process exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def record_path(var: Path) -> Path:
    return var / "stack.json"


def write_record(var: Path, record: Mapping[str, Any]) -> None:
    partial = var / "stack.json.partial"
    partial.write_text(json.dumps(record))
    partial.replace(record_path(var))
