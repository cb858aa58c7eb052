"""Supervision of the Procfile's processes on one machine: start, watch, restart, stop.

    with Stack(env={"PORT": "8000"}) as stack:
        stack.url, stack.engine_url, stack.process("worker-gpu").pid

Each process leads its own process group, so that a signal reaches its children (a trainer writes
its checkpoint) and Ctrl-C reaches only this supervisor. If the supervisor is killed, the orphan
reaper ends them (orphan_reaper.py). Their output goes to var/logs/<name>.log.
"""

import http.client
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self
from urllib.parse import urlsplit

import redis

from feedback_app.localstack import orphan_reaper
from feedback_app.localstack.logs import LogFollower, last_line, rotate
from feedback_app.localstack.paths import private_directory
from feedback_app.localstack.process import Process
from feedback_app.localstack.procfile import Plan, StackError, plan, require_space
from feedback_app.localstack.stack_lock import Running, acquire, record_path, running, write_record

__all__ = ["Running", "Stack", "StackError", "running"]

POLL_SECONDS = 0.2
READY_SECONDS = 300.0  # for a busy machine; a process that ends is noticed at once
ENGINE_SECONDS = 1800.0  # includes the download of a base model from the hub
#: Start last, and nobody waits for them: pages, answers and sampling need neither.
LAST = ("worker-gpu", "beat")


class Stack:
    """The processes of one machine, as a context manager. Raises StackError.

    `env` overrides the environment (None removes a variable); ports that it does not set are
    chosen. `processes` names a part of the Procfile's, instead of all that are needed here.
    `prepare` is called while the broker and the engine, the slowest process, start.
    """

    def __init__(
        self,
        env: Mapping[str, str | None] | None = None,
        processes: Sequence[str] | None = None,
        *,
        verbose: bool = False,
        say: Callable[[str], None] | None = None,
        prepare: Callable[[], None] | None = None,
    ) -> None:
        self.plan: Plan = plan(env or {}, processes)
        self.verbose = verbose
        self._say = say or to_stderr
        self._prepare = prepare
        self._processes = {
            name: Process(name, command, self) for name, command in self.plan.commands.items()
        }
        self._ending = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="stack-watcher", daemon=True)
        self._follower: LogFollower | None = None
        self._reaper: subprocess.Popen[bytes] | None = None
        self._reaper_lock = threading.Lock()
        self._lock_file: IO[str] | None = None

    def say(self, line: str) -> None:
        """Report a message."""
        self._say(line)

    @property
    def url(self) -> str:
        return self.plan.url

    @property
    def engine_url(self) -> str:
        return self.plan.engine_url

    @property
    def redis_url(self) -> str:
        return self.plan.redis_url

    def process(self, name: str) -> Process:
        return self._processes[name]

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start everything and return when pages and engine answer. Raises StackError."""
        var = self.plan.var
        private_directory(var)
        require_space(var)
        self._lock_file = acquire(var, self.say)
        for directory in (var / "logs", var / "run", var / "artifacts"):
            directory.mkdir(parents=True, exist_ok=True)
        for process in self._processes.values():
            rotate(process.log)
        self._reaper = subprocess.Popen(
            [sys.executable, "-I", "-S", str(Path(orphan_reaper.__file__))],
            stdin=subprocess.PIPE,
            start_new_session=True,
            # it also holds the lock on var/, until the last process has ended
            pass_fds=(self._lock_file.fileno(),),
        )
        if self.verbose:
            self._follower = LogFollower({p.name: p.log for p in self._processes.values()})
        for name in ("valkey", "engine"):  # need no tables
            if name in self._processes:
                self.process(name).start()
        if self._prepare is not None:
            self._prepare()
        self._wait_broker()
        self._raise_if_ended()
        first = [name for name in self._processes if name not in LAST]
        for name in first:
            self.process(name).start()
            if name != "engine":
                # one after the other beside the engine, which takes longest: all at once they would
                # take turns with it on the cores
                self.wait_ready([name])
        self.wait_ready(first)
        for name in LAST:
            if name in self._processes:
                self.process(name).start()
        self._watcher.start()
        record = {"url": self.url, "engine_url": self.engine_url, "redis_url": self.redis_url}
        write_record(var, {**record, "pid": os.getpid()})

    def stop(self) -> None:
        """Stop everything that was started; a second Ctrl-C kills it."""
        self._ending.set()
        if self._watcher.ident is not None:
            self._watcher.join()
        try:
            # the broker last, so that workers can return unfinished messages
            others = [p for name, p in self._processes.items() if name != "valkey"]
            for process in others:
                process.terminate()
            for process in [*others, *self._processes.values()]:
                process.stop()
        except KeyboardInterrupt:
            for process in self._processes.values():
                process.kill_group()
                process.wait_gone()
        finally:
            self._release()

    def _release(self) -> None:
        if self._follower is not None:
            self._follower.stop()
        if self._reaper is not None and self._reaper.stdin is not None:
            self._reaper.stdin.close()
            self._reaper.wait()
            self._reaper = None
        if self._lock_file is not None:
            record_path(self.plan.var).unlink(missing_ok=True)
            self._lock_file.close()
            self._lock_file = None

    def reaper_update(self, sign: str, group: int) -> None:
        """Tell the orphan reaper that a process group has started (+) or ended (-)."""
        with self._reaper_lock:
            if self._reaper is not None and self._reaper.stdin is not None:
                self._reaper.stdin.write(f"{sign}{group}\n".encode())
                self._reaper.stdin.flush()

    def _watch(self) -> None:
        while not self._ending.wait(POLL_SECONDS):
            for process in self._processes.values():
                process.watch()

    # -- readiness

    def wait_ready(self, names: Sequence[str] | None = None) -> None:
        """Wait until these processes (all, without names) are ready. Raises StackError."""
        checks: dict[str, Callable[[], bool]] = {
            "valkey": self._broker_answers,
            "web": lambda: health(self.url)[0],
            "engine": lambda: health(self.engine_url)[0],
            "worker-default": lambda: self.process("worker-default").ready_file.exists(),
            "worker-gpu": lambda: self.process("worker-gpu").ready_file.exists(),
        }
        started = said = time.monotonic()
        for name in names if names is not None else self._processes:
            limit = ENGINE_SECONDS if name == "engine" else READY_SECONDS
            check = checks.get(name, lambda: True)
            while not check():
                now = time.monotonic()
                self._raise_if_ended()
                if now - started > limit:
                    raise StackError(
                        f"{name} did not become ready in {limit:.0f} s: see "
                        f"{self.process(name).log}."
                    )
                if now - said > 10:
                    said = now
                    why = health(self.engine_url)[1] if name == "engine" else ""
                    self.say(f"Waiting for {name} ({now - started:.0f} s{why and f': {why}'}) …")
                time.sleep(POLL_SECONDS)

    def _raise_if_ended(self) -> None:
        if self._watcher.is_alive():
            return  # the watcher restarts it
        for process in self._processes.values():
            if process.ending is not None:
                raise StackError(
                    f"{process.name} ended at its start ({process.ending}): "
                    f"{last_line(process.log)} (all of it: {process.log})"
                )

    def _wait_broker(self) -> None:
        if "valkey" in self._processes:
            self.wait_ready(["valkey"])
        elif self._needs_broker() and not self._broker_answers():
            raise StackError(
                f"No Valkey or Redis answers at {self.redis_url}: start it, or unset "
                "REDIS_URL to have one started here."
            )

    def _needs_broker(self) -> bool:
        return any(name.startswith(("worker", "beat")) for name in self._processes)

    def _broker_answers(self) -> bool:
        if not self.redis_url.startswith("redis"):
            return True  # another kind of broker: the workers report it
        client = redis.Redis.from_url(self.redis_url, socket_connect_timeout=2, socket_timeout=2)
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False
        finally:
            client.close()


def to_stderr(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def health(url: str) -> tuple[bool, str]:
    """Return whether a local server is healthy, and its detail if not."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=5.0)
    try:
        connection.request("GET", "/health")
        response = connection.getresponse()
        if response.status == http.client.OK:
            return True, ""
        return False, str(json.loads(response.read()).get("detail", ""))
    except (OSError, http.client.HTTPException, ValueError, AttributeError):
        return False, ""
    finally:
        connection.close()
