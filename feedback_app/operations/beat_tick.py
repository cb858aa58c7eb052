"""The time of beat's last message, kept in the broker: shows whether beat is running."""

import time

import structlog
from django.conf import settings
from redis import Redis, RedisError

log = structlog.get_logger(__name__)

KEY = "prospect-beat-tick"
KEPT_SECONDS = 7 * 24 * 3600


def server() -> Redis:
    return Redis.from_url(settings.REDIS_URL, socket_connect_timeout=1, socket_timeout=1)


def tick_write() -> None:
    """Note that beat has just sent a message. Not written while the broker is unreachable."""
    if settings.HAS_SHARED_CACHE:
        try:
            with server() as broker:
                broker.set(KEY, time.time(), ex=KEPT_SECONDS)
        except RedisError as error:
            log.warning("beat_tick_not_written", why=str(error))


def tick_age() -> float | None:
    """Return the seconds since beat's last message; None if it sent none for a week."""
    with server() as broker:
        found = broker.get(KEY)
    return None if found is None else time.time() - float(found)
