"""Django's Redis cache, for which an unreachable server is a miss.

Django has no setting for this, and the cache only saves work: rows are the truth.
"""

import pickle
import threading
import time
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

import structlog
from django.core.cache.backends.base import DEFAULT_TIMEOUT
from django.core.cache.backends.redis import RedisCache
from redis import ConnectionPool, RedisError

log = structlog.get_logger(__name__)
T = TypeVar("T")

#: After a failure the server is not asked for this long, so that requests do not wait for it.
RETRY_SECONDS = 5.0
#: Errors of a value that another version of the code has stored.
UNREADABLE = (pickle.PickleError, AttributeError, ImportError, EOFError, IndexError, TypeError)


class SharedPool(ConnectionPool):
    """The connections of this process to a server.

    Django makes a cache for each context, and a request has a context of its own (threads.py): with
    a pool each, every request would open a connection and leave it to the garbage collector.
    """

    _by_url: ClassVar[dict[str, "SharedPool"]] = {}
    _making: ClassVar[threading.Lock] = threading.Lock()

    @classmethod
    def from_url(cls, url: str, **options: Any) -> "SharedPool":
        with cls._making:
            if url not in cls._by_url:
                cls._by_url[url] = super().from_url(url, **options)
            return cls._by_url[url]


class TolerantRedisCache(RedisCache):
    """Shares the server with the broker, under a key prefix."""

    # of the process: Django creates an instance per context
    _retry_at: ClassVar[float] = 0.0

    def __init__(self, server: Any, params: dict[str, Any]) -> None:
        options = {"pool_class": SharedPool, **params.get("OPTIONS", {})}
        super().__init__(server, {**params, "OPTIONS": options})

    def _try(self, call: Callable[[], T], otherwise: T) -> T:
        """Return the result of `call`, or `otherwise` if the server cannot be reached."""
        if time.monotonic() < TolerantRedisCache._retry_at:
            return otherwise
        try:
            return call()
        except RedisError as error:
            TolerantRedisCache._retry_at = time.monotonic() + RETRY_SECONDS
            log.warning("cache_unreachable", why=str(error))
        return otherwise

    def get(self, key: str, default: Any = None, version: int | None = None) -> Any:
        call = super().get
        try:
            return self._try(lambda: call(key, default, version), default)
        except UNREADABLE as error:
            log.warning("cache_value_unreadable", key=key, why=str(error))
            return default

    def get_many(self, keys: Any, version: int | None = None) -> dict[str, Any]:
        call = super().get_many
        return self._try(lambda: call(keys, version), {})

    def has_key(self, key: str, version: int | None = None) -> bool:
        call = super().has_key
        return self._try(lambda: call(key, version), False)

    def add(
        self, key: str, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> bool:
        call = super().add
        return self._try(lambda: call(key, value, timeout, version), False)

    def set(
        self, key: str, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> None:
        call = super().set
        self._try(lambda: call(key, value, timeout, version), None)

    def set_many(
        self, data: dict[str, Any], timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> list[str]:
        call = super().set_many
        return self._try(lambda: call(data, timeout, version), list(data))

    def incr(self, key: str, delta: int = 1, version: int | None = None) -> int:
        call = super().incr
        return self._try(lambda: call(key, delta, version), 0)

    def touch(self, key: str, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        call = super().touch
        return self._try(lambda: call(key, timeout, version), False)

    def delete(self, key: str, version: int | None = None) -> bool:
        call = super().delete
        return self._try(lambda: call(key, version), False)

    def delete_many(self, keys: Any, version: int | None = None) -> None:
        call = super().delete_many
        self._try(lambda: call(keys, version), None)

    def clear(self) -> None:
        """Delete the keys of this cache only: Django's own would delete the broker's as well."""

        def delete_all() -> None:
            client = self._cache.get_client(None, write=True)
            for key in client.scan_iter(match=f"{self.key_prefix}:*", count=1_000):
                client.delete(key)

        self._try(delete_all, None)
