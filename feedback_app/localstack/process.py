"""One process of a stack: its group, its end, its next start."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from typing import Protocol

from feedback_app.localstack import orphan_reaper
from feedback_app.localstack.paths import FILES
from feedback_app.localstack.procfile import Plan, StackError

POLL_SECONDS = 0.05
GRACE_SECONDS = {"worker-gpu": 30.0}  # a trainer ends its step and writes a checkpoint
GRACE_DEFAULT = 12.0
STEADY_SECONDS = 60.0  # a process that lived so long is not failing at its start
BACKOFF_LIMIT = 30.0


class Owner(Protocol):
    """What a process needs of its stack."""

    plan: Plan

    def say(self, line: str) -> None: ...
    def tell_guardian(self, sign: str, group: int) -> None: ...
    def wait_ready(self, names: Sequence[str]) -> None: ...


class Process:
    """One process of the stack. `kill` is what a crash looks like: it is started again."""

    def __init__(self, name: str, command: str, owner: Owner) -> None:
        self.name = name
        self.command = command
        self.log = owner.plan.var / "logs" / f"{name}.log"
        #: A worker creates it once it takes work (celery.py).
        self.ready_file = owner.plan.var / "run" / f"{name}.ready"
        self._owner = owner
        self._lock = threading.RLock()
        self._child: subprocess.Popen[bytes] | None = None
        self._wanted = False
        self._failures = 0
        self._started = 0.0
        self._due = 0.0

    @property
    def pid(self) -> int:
        """Its process id, which is also the id of its process group."""
        if self._child is None:
            raise StackError(f"{self.name} was not started.")
        return self._child.pid

    @property
    def alive(self) -> bool:
        return self._child is not None and self._child.poll() is None

    @property
    def ending(self) -> str | None:
        """How it ended, in words; None while it runs."""
        code = self._child.poll() if self._child else None
        if code is None:
            return None
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"

    def start(self) -> None:
        """Starts it, if it is not running."""
        with self._lock:
            self._wanted = True
            if self.alive:
                return
            self.ready_file.unlink(missing_ok=True)
            env = {**self._owner.plan.env, "PROSPECT_READY_FILE": str(self.ready_file)}
            with self.log.open("ab") as output:
                self._child = subprocess.Popen(
                    ["/bin/sh", "-c", f"exec {self.command}"],
                    cwd=FILES,
                    env=env,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            self._owner.tell_guardian("+", self._child.pid)
            self._started = time.monotonic()

    def kill(self) -> None:
        """SIGKILL to the process itself, not to its children, as a crash would."""
        with self._lock:
            os.kill(self.pid, signal.SIGKILL)

    def stop(self) -> None:
        """Ends it with its children, and keeps it ended."""
        with self._lock:
            self.terminate()
            self.wait_gone()

    def restart(self) -> None:
        """Ends it, starts it again and waits until it is ready."""
        with self._lock:
            self.stop()
            self.start()
        self._owner.wait_ready([self.name])

    def terminate(self) -> None:
        """SIGTERM to the whole group."""
        self._wanted = False
        if self._child is not None:
            orphan_reaper.signal_group(self._child.pid, signal.SIGTERM)

    def wait_gone(self) -> None:
        """Waits until no process of the group is left; SIGKILL when its grace is over."""
        if self._child is None:
            return
        deadline = time.monotonic() + GRACE_SECONDS.get(self.name, GRACE_DEFAULT)
        while self._child.poll() is None or orphan_reaper.alive(self._child.pid):
            if time.monotonic() > deadline:
                self.finish_off()
                break
            time.sleep(POLL_SECONDS)
        self._child.wait()
        self._owner.tell_guardian("-", self._child.pid)

    def finish_off(self) -> None:
        """SIGKILL to the whole group."""
        self._wanted = False
        if self._child is not None:
            orphan_reaper.signal_group(self._child.pid, signal.SIGKILL)

    def watch(self) -> None:
        """Starts it again after it died: at once the first time, then ever more slowly."""
        with self._lock:
            if not self._wanted or self._child is None or self.alive:
                return
            now = time.monotonic()
            if self._due == 0.0:
                # what it left behind must not work on beside its successor
                orphan_reaper.signal_group(self.pid, signal.SIGTERM)
                steady = now - self._started > STEADY_SECONDS
                self._failures = 1 if steady else self._failures + 1
                delay = min(BACKOFF_LIMIT, 2.0 ** (self._failures - 1))
                self._due = now + delay
                self._owner.say(
                    f"{self.name} ended ({self.ending}): starting it again in {delay:.0f} s. "
                    f"Its log: {self.log}"
                )
            elif now >= self._due and not orphan_reaper.alive(self.pid):
                self._owner.tell_guardian("-", self.pid)
                self._due = 0.0
                self.start()
