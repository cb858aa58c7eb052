"""Checks of the broker, the workers and beat."""

import time
from collections.abc import Iterator
from urllib.parse import urlsplit

from celery import current_app
from django.conf import settings
from redis import AuthenticationError, Redis, RedisError

from feedback_app.operations.beat_tick import tick_age
from feedback_app.operations.doctor.findings import Problem, reason

#: Beat sends a message every three seconds (settings.py).
MOST_TICK_SECONDS = 60
MOST_SKEW_SECONDS = 5
#: How long workers have to answer: one that trains or samples is slow to do so.
PATIENCE_SECONDS = 5.0
LOOPBACK = {"localhost", "127.0.0.1", "::1"}
START = "Start it with its line in the Procfile, or look at its log."


def server() -> Redis:
    return Redis.from_url(settings.REDIS_URL, socket_connect_timeout=3, socket_timeout=5)


def reachable() -> Iterator[Problem]:
    if not settings.HAS_SHARED_CACHE:
        yield Problem(
            "REDIS_URL names neither Valkey nor Redis: no worker gets any work.",
            "Set REDIS_URL, or use `make demo`, which starts Valkey.",
        )
        return
    try:
        with server() as broker:
            broker.ping()
    except AuthenticationError:
        yield Problem(
            "The broker needs another password than the one in REDIS_URL.",
            "Set REDIS_URL=redis://:PASSWORD@HOST:PORT/0.",
        )
    except RedisError as error:
        yield Problem(
            f"The broker cannot be reached: {reason(error)}. Votes are stored, but nobody can sign "
            "in and nothing is trained.",
            "Start Valkey, and compare REDIS_URL.",
        )


def password() -> Iterator[Problem]:
    parts = urlsplit(settings.REDIS_URL)
    if parts.scheme != "unix" and parts.hostname not in LOOPBACK and not parts.password:
        yield Problem(
            f"The broker at {parts.hostname} takes commands without a password, and its cache "
            "holds pickled objects: who can write there can run code here.",
            "Set requirepass there and the password in REDIS_URL, or keep it in a private network.",
            warning=True,
        )


def eviction() -> Iterator[Problem]:
    with server() as broker:
        memory = broker.info("memory")
    policy = str(memory.get("maxmemory_policy", "noeviction"))
    if policy.startswith("allkeys"):
        yield Problem(
            f"The broker evicts keys when its memory is full (maxmemory-policy {policy}), also "
            "the queues.",
            "Set maxmemory-policy to noeviction or volatile-lru, which keeps the queues.",
        )


def clock() -> Iterator[Problem]:
    with server() as broker:
        seconds, micros = broker.time()
    skew = seconds + micros / 1e6 - time.time()
    if abs(skew) > MOST_SKEW_SECONDS:
        yield Problem(
            f"The broker's clock differs by {skew:.0f} s from this machine's, so messages expire "
            "too early or too late.",
            "Run a time service (chrony, systemd-timesyncd) on both.",
        )


def workers() -> Iterator[Problem]:
    queues = {
        settings.CELERY_TASK_DEFAULT_QUEUE: "imports, sampling, webhooks and releases wait",
        "gpu": "runs wait",
    }
    served = queues_served(set(queues))
    for queue, effect in queues.items():
        if queue not in served:
            yield Problem(f"No worker serves the queue {queue}: {effect}.", f"Start one. {START}")


def queues_served(wanted: set[str]) -> set[str]:
    """Return the queues that workers say they serve; asks until all `wanted` are found."""
    found: set[str] = set()
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not wanted <= found and time.monotonic() < deadline:
        replies = current_app.control.inspect(timeout=1.0).active_queues() or {}
        found |= {queue["name"] for queues in replies.values() for queue in queues}
    return found


def beat() -> Iterator[Problem]:
    age = tick_age()
    if age is None or age > MOST_TICK_SECONDS:
        since = "for a week" if age is None else f"for {age:.0f} s"
        yield Problem(
            f"Beat has sent no message {since}: nothing starts automatically.",
            f"Start exactly one. {START}",
        )
