"""Metrics and log lines of web requests.

The web runs in several processes. Each writes its figures into files of its own under
`var/run/metrics`, and /metrics adds them up (prometheus-client's multiprocess mode).
"""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import prometheus_client.values
import structlog
from django.conf import settings
from django.http import HttpRequest, HttpResponseBase, StreamingHttpResponse
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.values import MultiProcessValue

log = structlog.get_logger(__name__)

METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
SAFE = {"GET", "HEAD", "OPTIONS"}
BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
#: More web processes than any machine runs.
SLOTS = 256


@dataclass(frozen=True)
class WebMetrics:
    """What this process counts; labels have few values: names of views, never paths."""

    requests: Counter
    seconds: Histogram
    open_answers: Gauge
    # held until the process ends
    lock: int


@cache
def web_metrics() -> WebMetrics | None:
    """Return the metrics of this process; None if their directory cannot be written."""
    directory = metrics_directory()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        slot, lock = claim_slot(directory)
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(directory)
        prometheus_client.values.ValueClass = MultiProcessValue(lambda: slot)  # type: ignore[no-untyped-call]
        return WebMetrics(
            requests=Counter(
                "prospect_http_requests",
                "Requests by view, method and status.",
                ["view", "method", "status"],
                registry=None,
            ),
            seconds=Histogram(
                "prospect_http_request_seconds",
                "Time until a view returned its response; a stream goes on after that.",
                ["view"],
                buckets=BUCKETS,
                registry=None,
            ),
            open_answers=Gauge(
                "prospect_open_answers",
                "Answers that are being streamed to readers.",
                registry=None,
                multiprocess_mode="sum",
            ),
            lock=lock,
        )
    except OSError as error:
        log.warning("metrics_off", why=str(error))
        return None


def metrics_directory() -> Path:
    return Path(settings.VAR) / "run" / "metrics"


def claim_slot(directory: Path) -> tuple[int, int]:
    """Return the number of this process's files, and the file descriptor that reserves it.

    A restarted process continues the counters of the one before. With files by process id, each
    restart would leave files behind, and deleting them would look like a drop of the totals.
    """
    for slot in range(SLOTS):
        lock = os.open(directory / f"{slot}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            continue
        # the streams of the process before have ended with it
        for stale in directory.glob(f"gauge_*_{slot}.db"):
            stale.unlink()
        return slot, lock
    raise OSError(f"all {SLOTS} slots of {directory} are in use")


def register_web_metrics(registry: CollectorRegistry) -> None:
    """Add the figures of all web processes to the registry."""
    if web_metrics() is not None:
        MultiProcessCollector(registry, path=str(metrics_directory()))  # type: ignore[no-untyped-call]


def measured(
    get_response: Callable[[HttpRequest], HttpResponseBase],
) -> Callable[[HttpRequest], HttpResponseBase]:
    """Middleware that counts each request and logs those that change something or fail."""
    metrics = web_metrics() if settings.METRICS_TOKEN or settings.MODE == "local" else None

    def middleware(request: HttpRequest) -> HttpResponseBase:
        started = time.monotonic()
        response = get_response(request)
        seconds = time.monotonic() - started
        view = view_of(request)
        method = method_of(request)
        if metrics is not None:
            metrics.requests.labels(view, method, response.status_code).inc()
            metrics.seconds.labels(view).observe(seconds)
            if is_event_stream(response):
                count_while_open(response, metrics.open_answers)
        if method not in SAFE or response.status_code >= 500:
            # no path and no query: they contain secrets of invitations and share links
            log.info(
                "request",
                method=method,
                view=view,
                status=response.status_code,
                seconds=round(seconds, 3),
            )
        return response

    return middleware


def method_of(request: HttpRequest) -> str:
    """Return the method; clients may send any word."""
    return request.method if request.method in METHODS else "other"


def view_of(request: HttpRequest) -> str:
    match = request.resolver_match
    return match.view_name if match is not None and match.view_name else "unmatched"


def is_event_stream(response: HttpResponseBase) -> bool:
    return response.headers.get("Content-Type", "").startswith("text/event-stream")


def count_while_open(response: HttpResponseBase, gauge: Gauge) -> None:
    """Raise the gauge while the response's content is being sent."""
    if not isinstance(response, StreamingHttpResponse):
        return
    pieces: Any = response.streaming_content

    def counted() -> Iterator[bytes]:
        with gauge.track_inprogress():
            yield from pieces

    response.streaming_content = counted()
