"""An HTTP server on loopback that behaves as a judge model behind the chat completions API."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

Behaviour = Callable[["Asked"], "Reply"]


@dataclass(frozen=True)
class Asked:
    """A request: its headers and body, and the two answers that are compared."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def compared(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body["messages"][-1]["content"])
        return found

    @property
    def answers(self) -> tuple[str, str]:
        return self.compared["answer_A"], self.compared["answer_B"]


@dataclass(frozen=True)
class Reply:
    """A response; `text` is the message of the model unless `raw` is given. `silent`: none comes
    before the server ends."""

    text: str = ""
    status: int = 200
    raw: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    silent: bool = False


def choose(choice: str) -> Reply:
    return Reply(json.dumps({"preferred": choice}))


def first_position(asked: Asked) -> Reply:
    return choose("A")


def longer(asked: Asked) -> Reply:
    a, b = asked.answers
    return choose("tie" if len(a) == len(b) else "A" if len(a) > len(b) else "B")


def kind(asked: Asked) -> Reply:
    """Prefer the answer that contains "good"."""
    a, b = ("good" in answer for answer in asked.answers)
    return choose("tie" if a == b else "A" if a else "B")


class JudgeServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behaviour: Behaviour = first_position
        self.asked: list[Asked] = []
        self.lock = threading.Lock()
        self.ended = threading.Event()
        self.at_once = self.most_at_once = self.replied = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: JudgeServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        asked = Asked(self.path, dict(self.headers), body)
        with self.server.lock:
            self.server.asked.append(asked)
            self.server.at_once += 1
            self.server.most_at_once = max(self.server.at_once, self.server.most_at_once)
        reply = self.server.behaviour(asked)
        if reply.silent:
            self.server.ended.wait()
            return
        message = {"choices": [{"message": {"role": "assistant", "content": reply.text}}]}
        raw = (json.dumps(message) if reply.raw is None else reply.raw).encode()
        with self.server.lock:
            self.server.at_once -= 1
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)
        with self.server.lock:
            self.server.replied += 1


@contextmanager
def judging() -> Iterator[JudgeServer]:
    with JudgeServer() as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield server
        finally:
            server.ended.set()
            server.shutdown()
