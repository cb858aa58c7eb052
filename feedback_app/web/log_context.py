"""What every log line of a request or task carries."""

from functools import partial
from typing import Any

from structlog.contextvars import bind_contextvars, get_contextvars


def request_id() -> str:
    """Return the id of the request that this code runs for; empty outside of requests and tasks.

    A task has the id of the request that sent it (monitoring/celery_signals.py).
    """
    return str(get_contextvars().get("request_id", ""))


def thread_context() -> dict[str, Any]:
    """Return arguments of a ThreadPoolExecutor, whose threads then log the same context."""
    return {"initializer": partial(bind_contextvars, **get_contextvars())}
