"""The supervisor of `python manage.py demo`: prepare, start, wait for Ctrl-C.

It imports neither Django nor Celery, so that the remaining process has less than 40 MB.
"""

import os
import signal
import sys
import threading
import time
from argparse import ArgumentParser
from pathlib import Path
from types import FrameType

from feedback_app.localstack.paths import HOME
from feedback_app.localstack.prepare import SignIn, prepare_model, prepare_site
from feedback_app.localstack.procfile import PACKAGED_MODEL, require_space
from feedback_app.localstack.stack import Stack, StackError, running

STEPS = 4


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--port", help="port of the web pages (default: PORT, else 8000)")
    parser.add_argument("--verbose", action="store_true", help="show the output of the processes")


class Demo:
    """One start: prints each step with the seconds since it began."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.sign_ins: list[SignIn] = []

    def run(self, port: str, *, verbose: bool) -> None:
        """Run all steps and wait; ends only by KeyboardInterrupt. Raises StackError."""
        var = Path(os.environ.get("PROSPECT_VAR") or HOME / "var").resolve()
        model = os.environ.get("BASE_MODEL") or PACKAGED_MODEL
        require_space(var)
        other = running(var)
        if other is not None:
            raise StackError(
                f"Prospect already runs at {other.url} (process {other.pid}): use it, or stop it."
            )
        # ports are checked first: one in use is reported before anything is prepared
        stack = Stack(env={"PORT": port}, verbose=verbose, say=self.say, prepare=self.prepare)
        self.step(1, f"Base model {model}")
        prepare_model(self.say, base_model=model, var=var)
        self.step(2, "Starting the engine; database, static files and starter project")
        with stack:
            self.step(4, "Ready. Sign in as")
            for person in self.sign_ins:
                write(f"         {person.role:<10} {person.email}  {person.password}")
            write(f"Ctrl-C stops everything. Logs: {var / 'logs'}")
            write(f"\x1b[32;1m{stack.url}\x1b[0m" if sys.stdout.isatty() else stack.url)
            try:
                threading.Event().wait()
            finally:
                self.say("Stopping; a trainer at work writes its checkpoint first …")

    def prepare(self) -> None:
        """Prepare what pages and workers need, while the engine loads its model."""
        self.sign_ins = prepare_site(starter=True)
        self.step(3, "Starting web, workers and beat")

    def step(self, number: int, what: str) -> None:
        self.say(f"{number}/{STEPS} {what}")

    def say(self, line: str) -> None:
        write(f"[{time.monotonic() - self.started:4.0f} s] {line}")


def write(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def interrupt(number: int, frame: FrameType | None) -> None:
    """End the demo at SIGTERM or a closed terminal, like Ctrl-C."""
    raise KeyboardInterrupt


def main() -> int:
    """Run until Ctrl-C; returns the exit code."""
    parser = ArgumentParser(prog="manage.py demo", description=__doc__)
    add_arguments(parser)
    options = parser.parse_args()
    # SIGINT too: a script that starts this in the background has it ignored
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    try:
        Demo().run(options.port or os.environ.get("PORT") or "8000", verbose=options.verbose)
    except KeyboardInterrupt:
        write("Stopped.")
    except StackError as error:
        sys.stderr.write(f"demo: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
