"""A heartbeat for a claim on a row, from its own thread, independent of the work's progress."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog
from django.conf import settings
from django.db import DatabaseError, InterfaceError, connection

log = structlog.get_logger(__name__)

#: Consecutive beats that may fail before another worker considers the claim abandoned.
BEATS_PER_STALE = 12
#: How long the end of the work waits for a beat in progress.
JOIN_SECONDS = 5.0


class Heartbeat:
    """Tells whether the claim is still held. `lost` never goes back to False."""

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
                    # the next beat may succeed; if none does, another worker takes over
                    log.warning("heartbeat_failed", why=str(error))
                    connection.close()
        finally:
            connection.close()  # the connection of this thread


def beat_seconds() -> float:
    """Return the seconds between two beats."""
    return float(settings.RUN_STALE_SECONDS) / BEATS_PER_STALE


@contextmanager
def kept_alive(beat: Callable[[], bool]) -> Iterator[Heartbeat]:
    """Call `beat` every few seconds, in its own thread, until the block ends.

    `beat` writes the heartbeat and returns False if another worker has the claim; then
    `Heartbeat.lost` is set and no further beat follows. After a database error it is called again.
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
