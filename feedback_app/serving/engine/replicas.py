"""Which of a base model's engines a request goes to, and which are out of traffic.

Every process finds out for itself. An engine that it has not spoken to yet, or that did not answer
a moment ago, gets no request before `bring_up` has given it what is live. With a single engine
there is no choice to make and nothing is remembered.
"""

import hashlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence

#: How long an engine that did not answer is left alone.
DOWN_SECONDS = 3.0

_lock = threading.Lock()
_up: set[str] = set()
_again: dict[str, float] = {}


def usable(urls: Sequence[str], key: str, bring_up: Callable[[str], bool]) -> Iterator[str]:
    """The engines that may be asked, best first; the next is looked at when it is needed.

    A key (the beginning of a conversation) finds the same engine again, which still holds its keys
    and values; different keys are spread evenly (rendezvous hashing, Thaler and Ravishankar 1998).
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
    """Takes an engine out of traffic for a moment, and until it has been brought up again."""
    with _lock:
        _up.discard(url)
        _again[url] = time.monotonic() + DOWN_SECONDS
