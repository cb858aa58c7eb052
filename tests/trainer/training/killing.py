"""Trainers that kill themselves on request: `python -m tests.trainer.training.killing`, by pipe.

Starting an interpreter with torch takes seconds, so this process imports everything once, with one
thread, and forks a child per run. A line of JSON requests a run (`Order`), a line answers when its
process has ended (`End`). A child kills itself from within: hooks count its changes to the run
directory and the modules it computes. Nothing of the trainer is replaced.
"""

import ctypes
import json
import os
import resource
import select
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self

import torch
import transformers.models.llama.modeling_llama  # noqa: F401 - imported once, not in every child

import trainer.training.train  # noqa: F401
from trainer.__main__ import main

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC
#: audit events of a change on disk; `open` counts if it can write
CHANGES = {"os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.truncate"}


@dataclass(frozen=True)
class Order:
    """A run, and how it ends. `never`: normally. `change`: SIGKILL before the `at`-th change to
    the run directory. `compute`: SIGKILL before the `at`-th module computes. `tear`: from the
    `at`-th change on no file can grow beyond `size` bytes (counted from the end of events.jsonl
    with `beyond_events`); the write that would exceed it is partial and ends the process. `full`:
    the same, but the write fails, as on a full disk, and the process continues. `clock`: SIGKILL
    from outside after `seconds`."""

    run_dir: str
    how: Literal["never", "change", "compute", "tear", "full", "clock"] = "never"
    at: int = 0
    size: int = 0
    beyond_events: bool = False
    seconds: float = 0.0


@dataclass(frozen=True)
class End:
    """How a run ended: its exit code or signal; the changes it made, including the one it was
    killed before; how many modules it computed (0 if it was killed); its duration; and its standard
    error."""

    code: int | None
    signal: int | None
    changes: tuple[str, ...]
    computed: int
    seconds: float
    words: str


class Killer:
    """The forking process, as seen by the tests."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.trainer.training.killing"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
            text=True,
        )

    def run(self, run_dir: Path, **order: Any) -> End:
        """Run until the process has ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asdict(Order(str(run_dir), **order))) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        return End(**{**answer, "changes": tuple(answer["changes"])})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End the process; between two runs it has no children."""
        self._process.communicate()


class Dying:
    """In a child: count changes, report each to the parent, and exit at the chosen one."""

    def __init__(self, order: Order, tell: Callable[[str], None]) -> None:
        self.order = order
        self.tell = tell
        self.changes = 0
        self.computed = 0

    def hook(self) -> None:
        """Start counting."""

        def watched(call: Callable[..., Any], name: str) -> Callable[..., Any]:
            def first(*arguments: Any, **named: Any) -> Any:
                self.change(name)
                return call(*arguments, **named)

            return first

        os.fsync = watched(os.fsync, "fsync")
        os.pwrite = watched(os.pwrite, "pwrite")
        sys.addaudithook(self.audit)
        call_module = torch.nn.Module.__call__

        def computing(module: Any, *arguments: Any, **named: Any) -> Any:
            self.computed += 1
            if self.order.how == "compute" and self.computed == self.order.at:
                self.die()
            return call_module(module, *arguments, **named)

        torch.nn.Module.__call__ = computing

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Handle an audit event, raised before the interpreter opens, renames or removes."""
        if event == "open":
            path, _, flags = arguments
            if isinstance(path, str) and path.startswith(self.order.run_dir) and flags & WRITING:
                self.change(f"open {path}")
        elif event in CHANGES:
            path = str(arguments[0])
            # shutil removes by name within an open directory; a descriptor is used only to truncate
            if path.startswith(self.order.run_dir) or not path.startswith("/"):
                self.change(f"{event} {path}")

    def change(self, what: str) -> None:
        self.changes += 1
        self.tell(f"{what}\n")
        if self.changes == self.order.at:
            if self.order.how == "change":
                self.die()
            if self.order.how in ("tear", "full"):
                self.limit()

    def limit(self) -> None:
        """Limit the file size: the kernel writes what fits and then sends SIGXFSZ, which ends the
        process or, if ignored, makes the write fail with EFBIG."""
        events = Path(self.order.run_dir) / "events.jsonl"
        size = self.order.size + (events.stat().st_size if self.order.beyond_events else 0)
        ignored = self.order.how == "full"
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN if ignored else signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    def die(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


def child(order: Order, pipe: int, words: int) -> None:
    """Run `python -m trainer train`; this process ends here in every case."""
    code = 1
    try:
        os.dup2(words, sys.stderr.fileno())
        obey_permissions()
        dying = Dying(order, lambda text: os.write(pipe, text.encode()))
        dying.hook()
        code = main(["train", order.run_dir])
        os.write(pipe, f"computed {dying.computed}\n".encode())
    except BaseException:  # the parent must get a traceback and an exit code, not a second server
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def obey_permissions() -> None:
    """Drop root's capability to write read-only files (CAP_DAC_OVERRIDE)."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # version 3, this process
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; two words of 32 bits each
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.capget(header, sets) == 0
    for index in range(3):
        sets[index] &= ~(1 << 1)
    assert libc.capset(header, sets) == 0


def run(order: Order) -> End:
    """Fork a child for the order and wait until it has ended or the time is up."""
    started = time.monotonic()
    reader, writer = os.pipe()
    words_reader, words_writer = os.pipe()  # not a file: the child may be unable to write files
    process = os.fork()
    if process == 0:
        os.close(reader)
        child(order, writer, words_writer)
    os.close(writer)
    os.close(words_writer)
    reported = b""
    until = started + order.seconds if order.how == "clock" else None
    while True:
        left = None if until is None else max(0.0, until - time.monotonic())
        if select.select([reader], [], [], left)[0]:
            part = os.read(reader, 65_536)
            if not part:
                break  # the child's end is closed: it has ended
            reported += part
        else:
            os.kill(process, signal.SIGKILL)
            until = None
    os.close(reader)
    _, status = os.waitpid(process, 0)
    lines = reported.decode().splitlines()
    with open(words_reader, encoding="utf-8") as words:  # noqa: PTH123 - a descriptor
        said = words.read()
    computed = [int(line.split()[1]) for line in lines if line.startswith("computed ")]
    return End(
        code=os.WEXITSTATUS(status) if os.WIFEXITED(status) else None,
        signal=os.WTERMSIG(status) if os.WIFSIGNALED(status) else None,
        changes=tuple(line for line in lines if not line.startswith("computed ")),
        computed=sum(computed),
        seconds=time.monotonic() - started,
        words=said,
    )


def serve() -> None:
    """Answer orders until the pipe is closed."""
    torch.set_num_threads(1)
    for line in sys.stdin:
        end = run(Order(**json.loads(line)))
        sys.stdout.write(json.dumps(asdict(end)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    serve()
