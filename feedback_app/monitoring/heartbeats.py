"""Heartbeats of workers and of the dispatch messages, in the shared cache.

The cache is the broker's server: without it no worker gets a message either.
"""

import time

from django.conf import settings
from django.core.cache import cache

#: Seconds between two heartbeats of a worker.
BEAT_SECONDS = 10.0
#: A worker or the dispatch without a heartbeat for this long counts as gone. A busy machine may
#: delay some heartbeats.
GONE_SECONDS = 60.0
#: How long the time of the last heartbeat is kept.
KEPT_SECONDS = 24 * 60 * 60
DISPATCH = "dispatch"


def queues() -> list[str]:
    """Return the names of all queues."""
    routed = {route["queue"] for route in settings.CELERY_TASK_ROUTES.values()}
    return sorted({settings.CELERY_TASK_DEFAULT_QUEUE, *routed})


def beat(*names: str) -> None:
    """Store a heartbeat of each queue, or of the dispatch."""
    now = time.time()
    cache.set_many({_key(name): now for name in names}, KEPT_SECONDS)


def last_beats() -> dict[str, float]:
    """Return the Unix time of the last heartbeat by name; a name without one is missing."""
    names = {_key(name): name for name in [*queues(), DISPATCH]}
    return {names[key]: at for key, at in cache.get_many(names).items()}


def is_alive(name: str) -> bool:
    at = last_beats().get(name)
    return at is not None and time.time() - at < GONE_SECONDS


def _key(name: str) -> str:
    return f"monitoring:heartbeat:{name}"
