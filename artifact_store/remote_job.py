"""A job on a host that has only the object store in common with the worker that waits for it:
`python -m artifact_store.remote_job OPTIONS -- COMMAND …`.

Brings the job's tree, runs the command, and stores what it leaves: its events piece by piece, for
the worker to follow, the whole tree after each checkpoint and at the end. Exit code: the command's;
128 and the signal that ended it; STORE_FAILED where the store does not answer.

Of several processes that train one run, each on a host of its own, the first stores (RANK).
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType

from artifact_store.cache import marker_of
from artifact_store.errors import StoreError, StoreUnreachable
from artifact_store.objects import ObjectStore
from artifact_store.pieces import PieceSender

#: Another attempt may succeed, on another host.
STORE_FAILED = 1
#: How often events are sent, and how long a store that does not answer is asked again, in seconds.
SEND_SECONDS, PATIENCE_SECONDS, AGAIN_SECONDS = 1.0, 300.0, 5.0
#: Standard output and error of the command, and its events, in its directory.
OUTPUT, EVENTS = "trainer.log", "events.jsonl"
OUTPUT_CHARACTERS = 4_000
CHECKPOINT = b'"type": "checkpoint"'


@dataclass(frozen=True)
class RemoteJob:
    """`directory` of the command is `tree` or a folder of it; it writes `generation` of the tree
    and reads the trees `reads`. `name` is where the store has the pieces of its events. `stores`:
    whether what the command leaves is stored; only one job of a tree at a time may do that."""

    store: ObjectStore
    tree: str
    generation: int
    directory: Path
    name: str
    reads: tuple[str, ...] = ()
    stores: bool = True

    def run(self, command: Sequence[str]) -> int:
        """Run the command between bringing and storing the tree; return its exit code.

        Raises StoreError.
        """
        parent = os.getppid()
        self._bring()
        events = PieceSender(self.store.url, self.name, self.directory / EVENTS)
        with (self.directory / OUTPUT).open("ab") as output:
            child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
            )
        signal.signal(signal.SIGTERM, passed_on(child))
        due = False
        while True:
            code = child.poll()
            with suppress(StoreUnreachable):  # sent with the next ones
                due = (self.stores and CHECKPOINT in events.send()) or due
                if code is None and due:
                    self._push()
                    due = False
            if code is not None:
                break
            if os.getppid() != parent:  # it was killed, and nothing else would end this
                child.terminate()
            time.sleep(SEND_SECONDS)
        if self.stores:
            persistently(self._push)
        elif code:  # nobody else gets to see it
            sys.stdout.write(output_end(self.directory / OUTPUT))
        self._remove()
        return code if code >= 0 else 128 - code

    def _bring(self) -> None:
        """Bring the tree as the worker has stored it, and what the command reads."""
        persistently(partial(self.store.fetch, self.tree, again=True))
        for tree in self.reads:
            persistently(partial(self.store.fetch, tree))
        self.store.trim(keep=self.reads)
        if not self.directory.is_dir():
            raise StoreError(f"{self.store.url} has no {self.tree}, which this job works on")

    def _push(self) -> None:
        self.store.push(self.tree, self.generation)

    def _remove(self) -> None:
        """Delete the tree from this host: the store has it, and nobody else looks here."""
        local = self.store.path(self.tree)
        marker_of(local).unlink(missing_ok=True)
        shutil.rmtree(local, ignore_errors=True)


def output_end(path: Path) -> str:
    """Return the end of what the command has printed."""
    return path.read_text(errors="replace")[-OUTPUT_CHARACTERS:]


def passed_on(child: subprocess.Popen[bytes]) -> Callable[[int, FrameType | None], None]:
    """Return a signal handler that sends a signal on to the child, whose end is waited for."""

    def send(number: int, frame: FrameType | None) -> None:
        child.send_signal(number)

    return send


def persistently(action: Callable[[], object]) -> None:
    """Do something with the store, again while it does not answer. Raises StoreError."""
    until = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            action()
            return
        except StoreUnreachable:
            if time.monotonic() > until:
                raise
        time.sleep(AGAIN_SECONDS)


def command_of(job: RemoteJob, command: Sequence[str], *, python: str) -> list[str]:
    """Return the command line that runs `command` as this job."""
    reads = [word for tree in job.reads for word in ("--reads", tree)]
    return [
        *(python, "-m", "artifact_store.remote_job"),
        *("--url", job.store.url, "--local", str(job.store.local)),
        *("--cache-gb", str(job.store.most / 2**30)),
        *("--tree", job.tree, "--generation", str(job.generation)),
        *("--directory", str(job.directory), "--name", job.name, *reads),
        *("--", *command),
    ]


def parse(arguments: Sequence[str]) -> tuple[RemoteJob, list[str]]:
    """Return the job and its command of a command line."""
    parser = argparse.ArgumentParser(prog="python -m artifact_store.remote_job")
    for name in ("url", "tree", "name"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--generation", required=True, type=int)
    parser.add_argument("--local", required=True, type=Path)
    parser.add_argument("--directory", required=True, type=Path)
    parser.add_argument("--cache-gb", default=0.0, type=float)
    parser.add_argument("--reads", action="append", default=[])
    parser.add_argument("command", nargs="+")
    found = parser.parse_args(arguments)
    store = ObjectStore(found.local, found.url, int(found.cache_gb * 2**30))
    job = RemoteJob(
        store,
        found.tree,
        found.generation,
        found.directory,
        found.name,
        tuple(found.reads),
        stores=os.environ.get("RANK", "0") == "0",
    )
    return job, found.command


def main(arguments: Sequence[str]) -> int:
    job, command = parse(arguments)
    try:
        return job.run(command)
    except StoreError as error:
        sys.stderr.write(f"{error}\n")
        return STORE_FAILED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
