"""Runs the WSGI application in threads behind an ASGI server.

The event loop reads requests and writes responses, so a slow client takes a socket and no thread.
Threads are divided by what they wait for, so that none of these can take those of the pages:

- pages: the body of the request was read before, and the response is complete after the view
- answers: the view or its stream waits for an engine, or a long download for its reader
- uploads: the body is read while it arrives, as it may have gigabytes

Django under ASGI runs each sync view through several thread switches, which costs pages two thirds
of their throughput, and reads a sync stream to its end before it sends it (docs/adr/0011).
"""

import asyncio
import contextvars
import io
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http import HTTPStatus
from typing import Any, TypeAlias
from urllib.parse import unquote_to_bytes

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Environ: TypeAlias = dict[str, Any]
WsgiApp: TypeAlias = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]

#: One interpreter computes one page at a time; the other threads wait for the database. Each keeps
#: a connection to it, so more of them cost memory on both sides.
PAGE_THREADS = 16
#: Requests that may wait for a thread of the pages. With those in threads they are about four
#: seconds of work on a slow core. More are refused: an answer that comes after its reader has left
#: only delays the others.
PAGES_WAITING = 80
ANSWER_THREADS = 128
UPLOAD_THREADS = 8
#: Bodies up to this size are read before a thread is taken. Django reads no larger form.
BODY_IN_MEMORY = 2_600_000
#: Responses with a Content-Length up to this are collected before they are sent.
RESPONSE_IN_MEMORY = 4_000_000
#: Seconds without progress after which a client is dropped, and the slowest rate of a body.
SILENCE_SECONDS = 10.0
BODY_BYTES_A_SECOND = 10_000
SEND_SECONDS = 30.0
DRAIN_SECONDS = 5.0
RETRY_SECONDS = 5
BUSY = "The server is busy. Nothing was changed: try again in a few seconds."
TOO_SLOW = "The request arrived too slowly."
NO_LENGTH = "Send a Content-Length."


class Gone(Exception):
    """The client has disconnected, or reads or sends too slowly."""


class Threads:
    """A pool in which at most `waiting` calls wait for a thread. Used from the event loop only."""

    def __init__(self, count: int, name: str, *, waiting: int = 0) -> None:
        self.pool = ThreadPoolExecutor(count, thread_name_prefix=name)
        self._places = count + waiting

    @property
    def free(self) -> bool:
        """Whether another call is accepted."""
        return self._places > 0

    async def run(self, call: Callable[[], Any]) -> Any:
        """Return the result of `call` in a thread. Check `free` first."""
        self._places -= 1
        future = asyncio.get_running_loop().run_in_executor(self.pool, call)
        # also if the request's task is cancelled: the thread is free when its work has ended
        future.add_done_callback(lambda _: self._done())
        return await asyncio.shield(future)

    def _done(self) -> None:
        self._places += 1


class ThreadedWsgi:
    """An ASGI application.

    `waits` returns whether a POST to a path waits for an engine. Paths in `monitoring` are answered
    however many pages wait: a server that refuses a health check under load would be restarted.
    """

    def __init__(
        self, app: WsgiApp, *, waits: Callable[[str], bool], monitoring: Collection[str] = ()
    ) -> None:
        self.app = app
        self.waits = waits
        self.monitoring = monitoring
        self.pages = Threads(PAGE_THREADS, "page", waiting=PAGES_WAITING)
        self.answers = Threads(ANSWER_THREADS, "answer")
        self.uploads = Threads(UPLOAD_THREADS, "upload")

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await Exchange(self, scope, receive, send).run()
        elif scope["type"] == "lifespan":
            while (await receive())["type"] != "lifespan.shutdown":
                await send({"type": "lifespan.startup.complete"})
            await send({"type": "lifespan.shutdown.complete"})


class Exchange:
    """One request and its response."""

    def __init__(self, server: ThreadedWsgi, scope: Message, receive: Receive, send: Send) -> None:
        self.server = server
        self.scope = scope
        self.receive = receive
        self.send = send
        self.loop = asyncio.get_running_loop()
        self.context = contextvars.copy_context()
        #: set once nobody reads the response any more
        self.gone = threading.Event()
        self.status = 0
        self.headers: list[tuple[str, str]] = []

    async def run(self) -> None:
        environ = environ_of(self.scope)
        length = environ.get("CONTENT_LENGTH", "")
        large = length.isdecimal() and int(length) > BODY_IN_MEMORY
        try:
            if large:
                environ["wsgi.input"] = io.BufferedReader(Upload(self))
            else:
                body = await self.body(int(length) if length.isdecimal() else BODY_IN_MEMORY)
                environ["wsgi.input"] = io.BytesIO(body)
                environ["CONTENT_LENGTH"] = str(len(body))
        except TimeoutError:
            return await self.refuse(HTTPStatus.REQUEST_TIMEOUT, TOO_SLOW)
        except ValueError:
            return await self.refuse(HTTPStatus.LENGTH_REQUIRED, NO_LENGTH)
        except Gone:
            return None
        watching = None if large else asyncio.create_task(self.watch())
        try:
            return await self.respond(environ, large=large)
        finally:
            self.gone.set()
            if watching is not None:
                watching.cancel()

    async def body(self, length: int) -> bytes:
        """Return the body. Raise TimeoutError, Gone, or ValueError for one beyond `length`."""
        found = bytearray()
        async with asyncio.timeout(SILENCE_SECONDS + length / BODY_BYTES_A_SECOND) as deadline:
            start = self.loop.time()
            while True:
                until = start + SILENCE_SECONDS + len(found) / BODY_BYTES_A_SECOND
                deadline.reschedule(until)
                message = await self.receive()
                if message["type"] == "http.disconnect":
                    raise Gone
                found += message.get("body", b"")
                if len(found) > length:
                    raise ValueError(length)
                if not message.get("more_body"):
                    return bytes(found)

    async def drain(self) -> None:
        """Read what the client still sends, for some seconds: a connection that is closed with
        unread bytes is reset, and the client would not see why it was refused."""
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                while (await self.receive()).get("more_body"):
                    pass

    async def watch(self) -> None:
        """Notice that the client disconnects."""
        while (await self.receive())["type"] != "http.disconnect":
            pass
        self.gone.set()

    async def respond(self, environ: Environ, *, large: bool) -> None:
        """Run the view in a thread of its kind and send its response."""
        server = self.server
        waits = environ["REQUEST_METHOD"] == "POST" and server.waits(self.scope["path"])
        if waits or large:
            threads = server.uploads if large else server.answers
            if not threads.free:
                return await self.refuse(HTTPStatus.SERVICE_UNAVAILABLE, BUSY)
            found = await threads.run(lambda: self.context.run(self.view, environ, stream=True))
        else:
            if not server.pages.free and self.scope["path"] not in server.monitoring:
                return await self.refuse(HTTPStatus.SERVICE_UNAVAILABLE, BUSY)
            found = await server.pages.run(lambda: self.context.run(self.view, environ))
        if isinstance(found, bytes):
            await self.send(self.start())
            if large:
                await self.send({"type": "http.response.body", "body": found, "more_body": True})
                await self.drain()
                found = b""
            await self.send({"type": "http.response.body", "body": found})
        elif found is not None:
            if not server.answers.free:
                await server.pages.run(lambda: close(found))
                return await self.refuse(HTTPStatus.SERVICE_UNAVAILABLE, BUSY)
            await server.answers.run(lambda: self.context.run(self.stream, found))
        return None

    async def refuse(self, status: HTTPStatus, why: str) -> None:
        """Send an error that is no view's, and close the connection."""
        self.status = status
        self.headers = [
            ("Content-Type", "text/plain; charset=utf-8"),
            ("Connection", "close"),
            ("Retry-After", str(RETRY_SECONDS)),
        ]
        await self.send(self.start())
        await self.send({"type": "http.response.body", "body": why.encode()})

    def start(self) -> Message:
        pairs = [
            (name.lower().encode("latin-1"), value.strip().encode("latin-1"))
            for name, value in self.headers
        ]
        return {"type": "http.response.start", "status": int(self.status), "headers": pairs}

    # -- in threads

    def view(self, environ: Environ, *, stream: bool = False) -> Iterable[bytes] | bytes | None:
        """Return the response if it is short, else what it consists of, unless `stream` sends it
        from this thread."""
        response = self.server.app(environ, self.start_response)
        length = dict(self.headers).get("Content-Length", "")
        if length.isdecimal() and int(length) <= RESPONSE_IN_MEMORY:
            try:
                return b"".join(response)
            finally:
                close(response)
        if not stream:
            return response
        self.stream(response)
        return None

    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: object = None
    ) -> None:
        self.status, self.headers = int(status.split()[0]), headers

    def stream(self, response: Iterable[bytes]) -> None:
        """Send the pieces as they come, until the client has gone."""
        try:
            self.send_now(self.start())
            for piece in response:
                if self.gone.is_set():
                    return
                if piece:
                    self.send_now({"type": "http.response.body", "body": piece, "more_body": True})
            self.send_now({"type": "http.response.body", "body": b""})
        except Gone:
            pass
        finally:
            close(response)

    def send_now(self, message: Message) -> None:
        """Send a message and wait until the socket has taken it. Raise Gone."""
        self.wait_for(self.send(message), SEND_SECONDS)

    def wait_for(self, action: Awaitable[Any], seconds: float) -> Any:
        """Return the result of an action of the event loop. Raise Gone if it takes longer."""

        async def limited() -> Any:
            return await asyncio.wait_for(action, seconds)

        try:
            return asyncio.run_coroutine_threadsafe(limited(), self.loop).result()
        except (TimeoutError, RuntimeError, OSError) as error:  # RuntimeError: the loop has ended
            raise Gone from error


class Upload(io.RawIOBase):
    """The body of a large request as a file, read from the client as it arrives."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.rest = b""
        self.more = True
        self.received = 0
        # seconds of the client; the view may take its own time between two reads
        self.waited = 0.0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self.rest and self.more:
            if self.waited > SILENCE_SECONDS + self.received / BODY_BYTES_A_SECOND:
                raise OSError(TOO_SLOW)
            begun = time.monotonic()
            try:
                message = self.exchange.wait_for(self.exchange.receive(), SILENCE_SECONDS)
            except Gone as error:
                raise OSError(TOO_SLOW) from error
            self.waited += time.monotonic() - begun
            if message["type"] == "http.disconnect":
                raise OSError("The client has disconnected.")
            self.rest, self.more = message.get("body", b""), message.get("more_body", False)
            self.received += len(self.rest)
        count = min(len(buffer), len(self.rest))
        buffer[:count], self.rest = self.rest[:count], self.rest[count:]
        return count


def close(response: Iterable[bytes]) -> None:
    """Close a WSGI response: Django's request ends here."""
    closing = getattr(response, "close", None)
    if closing is not None:
        closing()


def environ_of(scope: Message) -> Environ:
    """Return the WSGI environment of a request, without its body."""
    server = scope.get("server") or ("localhost", None)
    client = scope.get("client") or ("", 0)
    environ: Environ = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(scope["raw_path"]).decode("latin-1"),
        "QUERY_STRING": scope["query_string"].decode("latin-1"),
        "SERVER_PROTOCOL": f"HTTP/{scope['http_version']}",
        "SERVER_NAME": server[0],
        "SERVER_PORT": str(server[1] or ""),
        "REMOTE_ADDR": client[0],
        "REMOTE_PORT": str(client[1]),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope["scheme"],
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        if "_" in name:
            continue  # 'x_forwarded_proto' must not pass for the proxy's 'x-forwarded-proto'
        key = name.upper().replace("-", "_")
        if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            key = f"HTTP_{key}"
        if key in environ:
            value = f"{environ[key]}{'; ' if key == 'HTTP_COOKIE' else ','}{value}"
        environ[key] = value
    return environ
