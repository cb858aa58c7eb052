"""An HTTP server on loopback that records webhook requests and answers as configured."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread


@dataclass(frozen=True)
class Received:
    path: str
    headers: Message
    body: bytes


class Receiver(ThreadingHTTPServer):
    """`answers` holds pairs of status and redirect target, used in turn; then 200."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.received: list[Received] = []
        self.answers: list[tuple[int, str]] = []
        self.drips = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hook"


class Handler(BaseHTTPRequestHandler):
    server: Receiver

    def log_message(self, *args: object) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received.append(Received(self.path, self.headers, body))
        if self.server.drips:
            self.drip()
            return
        status, location = self.server.answers.pop(0) if self.server.answers else (200, "")
        self.send_response(status)
        if location:
            self.send_header("Location", location)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def drip(self) -> None:
        """Send headers without end, a few bytes at a time."""
        self.send_response_only(200)
        self.flush_headers()
        with suppress(OSError):
            while True:
                self.wfile.write(b"X-Slow: 1\r\n")
                time.sleep(0.02)

    def do_GET(self) -> None:
        self.server.received.append(Received(self.path, self.headers, b""))
        self.send_error(404)


@contextmanager
def receiving() -> Iterator[Receiver]:
    with Receiver() as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()
