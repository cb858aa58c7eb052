"""The shared cache: one server for all processes, and a site that works without it."""

import time
from collections.abc import Iterator
from contextvars import copy_context
from pathlib import Path

import pytest
import redis
from django.core.cache import CacheHandler
from redis.backoff import NoBackoff
from redis.retry import Retry

from feedback_app.config import cache
from feedback_app.config.cache import TolerantRedisCache
from feedback_app.localstack.stack import Stack

pytestmark = pytest.mark.slow

OPTIONS = {"socket_connect_timeout": 0.5, "socket_timeout": 0.5, "retry": Retry(NoBackoff(), 0)}
NOWHERE = "redis://127.0.0.1:9/0"


def cache_at(url: str) -> TolerantRedisCache:
    return TolerantRedisCache(url, {"KEY_PREFIX": "prospect-cache", "OPTIONS": OPTIONS})


@pytest.fixture(autouse=True)
def reachable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TolerantRedisCache, "_retry_at", 0.0)


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[str]:
    env = {"PROSPECT_VAR": str(tmp_path), "PROSPECT_ENV": "test", "REDIS_URL": None}
    with Stack(env, ["valkey"]) as stack:
        yield stack.redis_url


def test_requests_share_the_connections_of_their_process(valkey: str) -> None:
    """Django makes a cache for each context, and each request runs in a context of its own."""
    backend = "feedback_app.config.cache.TolerantRedisCache"
    caches = CacheHandler({"default": {"BACKEND": backend, "LOCATION": valkey, "OPTIONS": OPTIONS}})
    with redis.Redis.from_url(valkey) as server:
        before = server.info()["total_connections_received"]
        for number in range(20):
            copy_context().run(lambda n=number: caches["default"].set("key", n))
        assert caches["default"].get("key") == 19
        assert server.info()["total_connections_received"] == before + 1


def test_unreachable_server_is_a_miss() -> None:
    found = cache_at(NOWHERE)
    found.set("key", 1)
    assert found.get("key", "nothing") == "nothing"
    assert found.get_many(["key"]) == {}
    assert not found.add("key", 1)
    assert not found.has_key("key")
    assert not found.touch("key")
    assert found.incr("key") == 0
    assert not found.delete("key")
    assert found.set_many({"key": 1}) == ["key"]
    assert found.get_or_set("key", 2) == 2
    found.clear()


def test_unreachable_server_is_retried_only_after_a_delay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []

    def get(self: object, key: str, *_: object) -> None:
        asked.append(key)
        raise redis.ConnectionError("refused")

    monkeypatch.setattr(cache.RedisCache, "get", get)
    first, second = cache_at(NOWHERE), cache_at(NOWHERE)
    first.get("a")
    second.get("b")  # another thread of the process
    assert asked == ["a"]
    monkeypatch.setattr(TolerantRedisCache, "_retry_at", time.monotonic() - 1)
    second.get("c")
    assert asked == ["a", "c"]


@pytest.mark.slow
def test_processes_share_values_and_clear_keeps_the_broker_data(valkey: str) -> None:
    first, second = cache_at(valkey), cache_at(valkey)
    first.set("key", {"votes": 3}, 60)
    assert second.get("key") == {"votes": 3}
    assert second.delete("key")
    assert first.get("key") is None
    broker = redis.Redis.from_url(valkey)
    broker.set("celery", "a message")
    broker.set(first.make_key("stale"), b"not a pickle")
    assert first.get("stale", "nothing") == "nothing", "values of another code version are ignored"
    first.set("key", 1)
    assert first.get("key") == 1, "an unreadable value does not disable the server"
    first.clear()
    assert list(broker.keys()) == [b"celery"]
    broker.close()
