"""Whether each part that Prospect needs answers, found out within a bounded time."""

import threading
import time
from collections.abc import Callable
from functools import partial

import httpx
import redis
import structlog
from django.conf import settings
from django.db import connection

from feedback_app.monitoring import heartbeats

log = structlog.get_logger(__name__)

#: A check that takes longer counts as failed; the page answers within about this time.
LIMIT_SECONDS = 1.5
#: A finished check is used again for this long, so that many requests cause no more checks.
FRESH_SECONDS = 1.0
#: Returns why a part is not ready, in one sentence without secrets, or None.
Check = Callable[[], str | None]


class Probe:
    """Runs one check in a thread of its own.

    While a check hangs no further one is started: a part that never answers occupies one thread.
    """

    def __init__(self, check: Check) -> None:
        self._check = check
        self._lock = threading.Lock()
        self._finished: threading.Event | None = None
        self._finished_at = 0.0
        self._fault: str | None = None

    def start(self) -> None:
        """Start the check, unless one is running or has just finished."""
        with self._lock:
            if self._finished is not None and (
                not self._finished.is_set() or time.monotonic() - self._finished_at < FRESH_SECONDS
            ):
                return
            self._finished = threading.Event()
            threading.Thread(target=self._run, args=(self._finished,), daemon=True).start()

    def fault(self, *, deadline: float) -> str | None:
        """Return the result of the check; wait for it until `deadline` (time.monotonic)."""
        finished = self._finished
        if finished is None or not finished.wait(max(0.0, deadline - time.monotonic())):
            return f"It has not answered within {LIMIT_SECONDS:g} seconds."
        return self._fault

    def _run(self, finished: threading.Event) -> None:
        try:
            self._fault = self._check()
        except Exception as error:
            # the message of the error may contain an address with a password
            log.warning("readiness_check_failed", kind=type(error).__name__)
            self._fault = f"The check failed with {type(error).__name__}."
        finally:
            self._finished_at = time.monotonic()
            finished.set()


def database_fault() -> str | None:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    finally:
        connection.close()  # of this thread
    return None


def broker_fault() -> str | None:
    if not settings.HAS_SHARED_CACHE:
        return None  # a broker in memory
    client = redis.Redis.from_url(
        settings.CELERY_BROKER_URL, socket_connect_timeout=1.0, socket_timeout=1.0
    )
    try:
        client.ping()
    finally:
        client.close()
    return None


def engine_fault(url: str) -> str | None:
    answer = httpx.get(f"{url}/health", timeout=LIMIT_SECONDS, trust_env=False)
    return None if answer.is_success else f"An engine answers with status {answer.status_code}."


def worker_fault(queue: str) -> str | None:
    if heartbeats.is_alive(queue):
        return None
    return (
        f"No worker of the queue {queue} has sent a heartbeat for "
        f"{heartbeats.GONE_SECONDS:.0f} seconds."
    )


def dispatch_fault() -> str | None:
    if heartbeats.is_alive(heartbeats.DISPATCH):
        return None
    return (
        f"No dispatch task has run for {heartbeats.GONE_SECONDS:.0f} seconds: "
        "beat or the worker of the default queue is not running."
    )


def engines() -> dict[str, list[str]]:
    """Return the URLs of the engines by base model."""
    return {
        model: [url.rstrip("/") for url in ([urls] if isinstance(urls, str) else urls)]
        for model, urls in settings.ENGINES.items()
    }


#: By name of the part, or URL of the engine.
_probes: dict[str, Probe] = {}


def _started(name: str, check: Check) -> Probe:
    probe = _probes.setdefault(name, Probe(check))
    probe.start()
    return probe


def readiness() -> tuple[dict[str, str | None], dict[str, bool]]:
    """Return why each part is not ready (None: ready), and whether each engine answers, by URL."""
    deadline = time.monotonic() + LIMIT_SECONDS
    probes = {
        "database": _started("database", database_fault),
        "broker": _started("broker", broker_fault),
    }
    replicas = {
        url: _started(url, partial(engine_fault, url))
        for urls in engines().values()
        for url in urls
    }
    for queue in heartbeats.queues():
        probes[f"worker-{queue}"] = _started(f"worker-{queue}", partial(worker_fault, queue))
    probes["dispatch"] = _started("dispatch", dispatch_fault)
    up = {url: probe.fault(deadline=deadline) is None for url, probe in replicas.items()}
    parts = {name: probe.fault(deadline=deadline) for name, probe in probes.items()}
    return {**parts, "engines": _engines_fault(up)}, up


def _engines_fault(up: dict[str, bool]) -> str | None:
    """One engine of each base model suffices: requests go to those that answer."""
    silent = [
        model for model, urls in engines().items() if not any(up.get(url, False) for url in urls)
    ]
    return f"No engine of {', '.join(silent)} is ready." if silent else None
