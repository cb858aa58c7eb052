"""Everything that /metrics exports, in Prometheus' text format."""

from collections.abc import Iterator
from urllib.parse import urlsplit

import structlog
from django.db import DatabaseError, InterfaceError
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from feedback_app.monitoring import heartbeats, task_counts
from feedback_app.monitoring.readiness import engines, readiness
from feedback_app.monitoring.requests import register_web_metrics
from feedback_app.monitoring.totals import Totals, totals

log = structlog.get_logger(__name__)


def metrics_text() -> bytes:
    """Return the metrics of all processes. Waits for parts that hang for a bounded time."""
    registry = CollectorRegistry()
    register_web_metrics(registry)
    registry.register(Shared())
    return generate_latest(registry)


class Shared:
    """Collects what is the same for all web processes."""

    def collect(self) -> Iterator[Metric]:
        parts, up = readiness()
        yield from _parts(parts, up)
        yield from _workers()
        if parts["database"] is None:
            try:
                yield from _totals(totals())
            except (DatabaseError, InterfaceError) as error:
                log.warning("metrics_without_totals", kind=type(error).__name__)


def _parts(parts: dict[str, str | None], up: dict[str, bool]) -> Iterator[Metric]:
    ready = GaugeMetricFamily(
        "prospect_part_ready", "Whether a part is ready (see /readyz).", labels=["part"]
    )
    for name, fault in parts.items():
        ready.add_metric([name], fault is None)
    yield ready
    engine_up = GaugeMetricFamily(
        "prospect_engine_up", "Whether an engine is ready.", labels=["engine", "base_model"]
    )
    for model, urls in engines().items():
        for url in urls:
            # no user and password
            address = urlsplit(url)
            engine_up.add_metric([f"{address.hostname}:{address.port}", model], up.get(url, False))
    yield engine_up


def _workers() -> Iterator[Metric]:
    beats = GaugeMetricFamily(
        "prospect_heartbeat_timestamp_seconds",
        "Unix time of the last heartbeat of a queue's workers, or of the dispatch.",
        labels=["name"],
    )
    for name, at in heartbeats.last_beats().items():
        beats.add_metric([name], at)
    yield beats
    ended = CounterMetricFamily(
        "prospect_tasks", "Ended Celery tasks by state.", labels=["task", "state"]
    )
    seconds = CounterMetricFamily(
        "prospect_task_seconds", "Total duration of ended Celery tasks.", labels=["task"]
    )
    for name, counted in task_counts.counts().items():
        ended.add_metric([name, "succeeded"], counted.succeeded)
        ended.add_metric([name, "failed"], counted.failed)
        ended.add_metric([name, "retried"], counted.retried)
        seconds.add_metric([name], counted.seconds)
    yield from (ended, seconds)


def _totals(found: Totals) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "prospect_queue_items_waiting",
        "Items that need votes, at most 2,000 of each project.",
        value=found.waiting,
    )
    yield GaugeMetricFamily(
        "prospect_queue_leases", "Items that are reserved for a person.", value=found.leases
    )
    votes = CounterMetricFamily(
        "prospect_votes",
        "Votes cast, changed or undone since counting began.",
        labels=["verdict", "source"],
    )
    for (verdict, source), count in found.votes.items():
        votes.add_metric([verdict, source], count)
    yield votes
    runs = GaugeMetricFamily("prospect_runs", "Training runs by status.", labels=["status"])
    for status, count in found.runs.items():
        runs.add_metric([status], count)
    yield runs
    spent = CounterMetricFamily(
        "prospect_run_seconds",
        "Total time from start to end of the ended runs, by status.",
        labels=["status"],
    )
    for status, seconds in found.run_seconds.items():
        spent.add_metric([status], seconds)
    yield spent
    yield GaugeMetricFamily(
        "prospect_run_heartbeat_age_seconds",
        "Age of the oldest heartbeat of the runs in progress; 0 without one.",
        value=found.run_heartbeat_age,
    )
    gate = CounterMetricFamily(
        "prospect_gate_decisions", "Versions by what the gate said of them.", labels=["result"]
    )
    for result, count in found.gate.items():
        gate.add_metric([result], count)
    yield gate
