"""The log files of a stack's processes: rotated at each start, followed onto the console."""

import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

POLL_SECONDS = 0.2


def rotate(log: Path) -> None:
    """Start an empty log and keep that of the last start as <name>.log.1."""
    if log.exists():
        log.replace(log.with_name(f"{log.name}.1"))
    log.touch()


def last_line(log: Path) -> str:
    """Return the last line of a log, shortened to fit into a message."""
    text = log.read_text(errors="replace") if log.exists() else ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "no output"


class LogFollower:
    """Copies new lines of several logs to the console, each with its process's name.

    It reads the files, so that a process neither waits for the console nor depends on it.
    """

    def __init__(self, logs: Mapping[str, Path], output: TextIO | None = None) -> None:
        self._logs = logs
        self._output = output or sys.stdout
        self._offsets = dict.fromkeys(logs, 0)
        self._width = max(map(len, logs), default=0)
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="log-follower", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Copy the remaining lines, then stop."""
        self._ending.set()
        self._thread.join()

    def _follow(self) -> None:
        while not self._ending.wait(POLL_SECONDS):
            self._copy()
        self._copy()

    def _copy(self) -> None:
        for name, log in self._logs.items():
            with log.open("rb") as file:
                file.seek(self._offsets[name])
                new = file.read()
            whole = new[: new.rfind(b"\n") + 1]
            self._offsets[name] += len(whole)
            for line in whole.decode(errors="replace").splitlines():
                print(f"{name:<{self._width}} | {line}", file=self._output, flush=True)
