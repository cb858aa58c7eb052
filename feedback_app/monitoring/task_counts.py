"""Counts and durations of tasks over all workers, as counters in the shared cache.

Workers run on several hosts, which share the cache and no directory. A counter begins at 0 again
when the cache is emptied, which Prometheus treats as a restart.
"""

from dataclasses import dataclass

from celery import current_app, states
from django.core.cache import cache

#: States of an ended task that are counted separately; any other counts as a failure.
COUNTED = (states.SUCCESS, states.RETRY)


@dataclass(frozen=True)
class TaskCounts:
    """The ended tasks of one name by state, and their total duration."""

    succeeded: int
    failed: int
    retried: int
    seconds: float


def add(name: str, *, state: str, seconds: float) -> None:
    """Count one ended task."""
    _increase(_key(name, state if state in COUNTED else states.FAILURE), 1)
    _increase(_key(name, "ms"), round(seconds * 1000))


def counts() -> dict[str, TaskCounts]:
    """Return the counts of every task of Prospect, by name.

    Empty if the cache cannot be reached: zeros would look like a restart of all counters.
    """
    current_app.loader.import_default_modules()  # the web process sends only some of them
    names = sorted(name for name in current_app.tasks if not name.startswith("celery."))
    parts = (states.SUCCESS, states.FAILURE, states.RETRY, "ms")
    found = cache.get_many([_key(name, part) for name in names for part in parts])
    if not found:
        return {}
    return {
        name: TaskCounts(
            succeeded=found.get(_key(name, states.SUCCESS), 0),
            failed=found.get(_key(name, states.FAILURE), 0),
            retried=found.get(_key(name, states.RETRY), 0),
            seconds=found.get(_key(name, "ms"), 0) / 1000,
        )
        for name in names
    }


def _increase(key: str, by: int) -> None:
    try:
        cache.incr(key, by)
    except ValueError:  # the first one
        if not cache.add(key, by, None):
            cache.incr(key, by)


def _key(name: str, part: str) -> str:
    return f"monitoring:task:{name}:{part}"
