"""Heartbeats of a claim, written by a separate thread while the work is slow."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog
from django.conf import settings
from django.db import DatabaseError, InterfaceError, connection

log = structlog.get_logger(__name__)

#: Heartbeats that may fail in a row before another worker takes the row over.
BEATS_PER_STALE = 12
#: How long the end of the work waits for a heartbeat in progress.
JOIN_SECONDS = 5.0


class Heartbeat:
    """The state of a claim's heartbeats. Once `lost` is True it stays True."""

    def __init__(self) -> None:
        self._ended = threading.Event()
        self._lost = threading.Event()

    @property
    def lost(self) -> bool:
        return self._lost.is_set()

    def _run(self, beat: Callable[[], bool], seconds: float) -> None:
        try:
            while not self._ended.wait(seconds):
                try:
                    if not beat():
                        self._lost.set()
                        return
                except (DatabaseError, InterfaceError) as error:
                    # the next heartbeat may succeed; if none does, another worker takes over
                    log.warning("heartbeat_failed", why=str(error))
                    connection.close()
        finally:
            connection.close()  # the connection of this thread


def beat_seconds() -> float:
    """Return the seconds between two heartbeats."""
    return float(settings.RUN_STALE_SECONDS) / BEATS_PER_STALE


@contextmanager
def kept_alive(beat: Callable[[], bool]) -> Iterator[Heartbeat]:
    """Call `beat` every few seconds, in a separate thread, until the block ends.

    `beat` writes the heartbeat and returns False if the claim is lost; then `Heartbeat.lost` is
    set and no further call follows. A database error is retried at the next heartbeat.
    """
    heartbeat = Heartbeat()
    thread = threading.Thread(
        target=heartbeat._run, args=(beat, beat_seconds()), name="heartbeat", daemon=True
    )
    thread.start()
    try:
        yield heartbeat
    finally:
        heartbeat._ended.set()
        thread.join(JOIN_SECONDS)
