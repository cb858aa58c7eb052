"""Adaptive limit on the concurrent requests to an engine."""

import threading
import time
from collections.abc import Callable

START = 4
#: The least duration of a rate measurement, and the least tokens per concurrent request.
WINDOW_SECONDS = 2.0
WINDOW_TOKENS = 4
#: The share by which the rate must grow for a higher limit to be kept.
GAIN = 0.1
#: How long a limit is kept after a higher one was no faster, or the engine refused a request.
HOLD_SECONDS = 30.0
#: Refusals within this time count as one.
REFUSALS_SECONDS = 1.0


class ConcurrencyLimit:
    """The number of concurrent requests: `allowed`, between 1 and `most`.

    It doubles while the tokens per second grow with it, is reset to the previous value when they
    do not, and is halved when the engine refuses a request. Thread-safe; `clock` returns seconds.
    """

    def __init__(
        self, *, most: int, start: int = START, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.most = most
        self._clock = clock
        self._lock = threading.Lock()
        self._allowed = min(start, most)
        #: The limit before the last increase and its rate, until the new rate is known.
        self._before: tuple[int, float] | None = None
        self._held_until = 0.0
        self._refused_at = float("-inf")
        self._measure_after(self._allowed)

    @property
    def allowed(self) -> int:
        return self._allowed

    def begun(self) -> None:
        """Record that the first token of a request has arrived."""
        with self._lock:
            self._unbegun -= 1
            if self._unbegun == 0:
                self._tokens, self._since = 0, self._clock()

    def delivered(self, tokens: int) -> None:
        """Record new tokens, over all requests."""
        with self._lock:
            if self._unbegun > 0:
                return
            self._tokens += tokens
            seconds = self._clock() - self._since
            if seconds >= WINDOW_SECONDS and self._tokens >= WINDOW_TOKENS * self._allowed:
                self._measured(self._tokens / seconds)

    def refused(self) -> None:
        """Record that the engine refused or dropped a request."""
        with self._lock:
            now = self._clock()
            if now - self._refused_at >= REFUSALS_SECONDS:
                self._refused_at = now
                self._hold(max(1, self._allowed // 2))

    def _measured(self, rate: float) -> None:
        if self._before is not None:
            smaller, its_rate = self._before
            if rate < its_rate * (1 + GAIN):
                self._hold(smaller)
                return
        self._before = None
        grown = min(self.most, 2 * self._allowed)
        if grown > self._allowed and self._clock() >= self._held_until:
            self._before = (self._allowed, rate)
            self._measure_after(grown - self._allowed)
            self._allowed = grown
        else:
            self._measure_after(0)

    def _hold(self, allowed: int) -> None:
        self._allowed, self._before = allowed, None
        self._held_until = self._clock() + HOLD_SECONDS
        self._measure_after(0)

    def _measure_after(self, unbegun: int) -> None:
        """Start a new window once `unbegun` more requests have had their first token.

        Prefilling the added requests slows the others down.
        """
        self._unbegun = unbegun
        self._tokens, self._since = 0, self._clock()
