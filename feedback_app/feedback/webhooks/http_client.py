"""One POST to a checked address within a total time limit."""

import ssl
import time
from collections.abc import Iterable, Mapping
from typing import Any

import httpcore
import httpx

from feedback_app.feedback.webhooks.addresses import Target

SECONDS = 10.0  # in total
STEP_SECONDS = 5.0  # for the connection, and for each read or write


class Unreached(Exception):
    """The server did not answer, not in HTTP or not in time."""


class TimedStream(httpcore.NetworkStream):
    """A connection with a deadline, whatever the other side sends."""

    def __init__(self, stream: httpcore.NetworkStream, until: float) -> None:
        self.stream = stream
        self.until = until

    def left(self, timeout: float | None) -> float:
        """Return the seconds for the next step. Raise httpcore.ReadTimeout when there are none
        left."""
        left = self.until - time.monotonic()
        if left <= 0:
            raise httpcore.ReadTimeout("too slow")
        return left if timeout is None else min(timeout, left)

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self.stream.read(max_bytes, self.left(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self.stream.write(buffer, self.left(timeout))

    def close(self) -> None:
        self.stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        safe = self.stream.start_tls(ssl_context, server_hostname, self.left(timeout))
        return TimedStream(safe, self.until)

    def get_extra_info(self, info: str) -> Any:
        return self.stream.get_extra_info(info)


class Pinned(httpcore.NetworkBackend):
    """Connects to the target's checked address without another lookup, until a deadline.

    `until`: of time.monotonic().
    """

    def __init__(self, target: Target, until: float) -> None:
        self.target = target
        self.until = until

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        stream = httpcore.SyncBackend().connect_tcp(str(self.target.address), port, timeout)
        return TimedStream(stream, self.until)


def post(target: Target, body: bytes, headers: Mapping[str, str]) -> int:
    """Send the body and return the status of the response.

    Redirects are not followed, the response body is not read, no proxy is used. TLS verifies the
    URL's host name. Raise Unreached.
    """
    sent = [("Host", netloc(target.url)), *headers.items()]
    steps = dict.fromkeys(("connect", "read", "write", "pool"), STEP_SECONDS)
    try:
        with (
            httpcore.ConnectionPool(
                ssl_context=httpx.create_ssl_context(trust_env=False),
                network_backend=Pinned(target, time.monotonic() + SECONDS),
            ) as pool,
            pool.stream(
                "POST",
                ascii_url(target.url),
                content=body,
                headers=sent,
                extensions={"timeout": steps},
            ) as response,
        ):
            return int(response.status)
    except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError) as error:
        raise Unreached(f"The server could not be reached: {type(error).__name__}.") from error


def netloc(url: str) -> str:
    """Return host and port as in the URL, names in ASCII."""
    return httpx.URL(url).netloc.decode()


def ascii_url(url: str) -> httpcore.URL:
    """Return a URL whose host, path and query may have any letters as httpcore takes it."""
    parts = httpx.URL(url)
    return httpcore.URL(
        scheme=parts.raw_scheme, host=parts.raw_host, port=parts.port, target=parts.raw_path
    )
