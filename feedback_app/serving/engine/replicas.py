"""Routing of requests among the engines of a base model.

The state is per process. An engine that this process has not used yet, or that did not answer a
moment ago, gets no request before `bring_up` has loaded what is live. With a single engine there
is no state.
"""

import hashlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence

#: How long an engine that did not answer gets no request.
DOWN_SECONDS = 3.0

_lock = threading.Lock()
_up: set[str] = set()
_again: dict[str, float] = {}


def usable(urls: Sequence[str], key: str, bring_up: Callable[[str], bool]) -> Iterator[str]:
    """Yield the usable engines, best first; each is checked only when it is reached.

    A key (the beginning of a conversation) maps to the same engine again, which still has its KV
    cache; keys are spread evenly (rendezvous hashing, Thaler and Ravishankar 1998).
    """
    if len(urls) == 1:
        yield urls[0]
        return
    for url in sorted(urls, key=lambda url: hashlib.sha256(f"{url} {key}".encode()).digest()):
        with _lock:
            known, waits = url in _up, time.monotonic() < _again.get(url, 0.0)
        if known:
            yield url
        elif not waits:
            if bring_up(url):
                with _lock:
                    _up.add(url)
                yield url
            else:
                went_down(url)


def went_down(url: str) -> None:
    """Send an engine no requests for DOWN_SECONDS, and until it has been brought up again."""
    with _lock:
        _up.discard(url)
        _again[url] = time.monotonic() + DOWN_SECONDS
