"""Turn SIGTERM and SIGINT into a flag that the loop checks where stopping is safe."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Self


class StopRequest:
    """Whether this process was asked to stop."""

    def __init__(self) -> None:
        self.asked = False

    @classmethod
    def listening(cls) -> Self:
        """Return a request that SIGTERM and SIGINT set until the process ends. Must be called in
        the main thread."""
        request = cls()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, request._ask)
        return request

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True


@contextmanager
def stop_on_signal() -> Iterator[StopRequest]:
    """Set a StopRequest on SIGTERM and SIGINT inside the context; restore the previous handlers
    afterwards. Must run in the main thread."""
    request = StopRequest()
    before = {
        number: signal.signal(number, request._ask) for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stop_with_parent(*, poll_seconds: float = 0.5) -> None:
    """Ask this process to stop once its parent is gone.

    When a worker is killed its trainer must end too, before the run's next trainer starts. Watching
    the parent's id works on every POSIX system, without a signal handler.
    """
    parent = os.getppid()
    never = threading.Event()

    def watch() -> None:
        while os.getppid() == parent:
            never.wait(poll_seconds)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="stop-with-parent", daemon=True).start()


def stop_with_input() -> None:
    """Ask this process to stop once its standard input ends.

    A pipe reaches every process of a run, whatever lies between it and the worker: it ends when the
    worker closes it, and also when the worker is killed. Nothing else may read standard input.
    """

    def watch() -> None:
        while os.read(0, 4096):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="stop-with-input", daemon=True).start()
