"""A small engine over real HTTP with configurable delays and errors.

Its answer repeats the question, then one word per further token.
"""

import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

WORD = "so "


@dataclass
class Manner:
    """How the engine answers. Seconds are real; `faults` is keyed by the last message's text."""

    tokens: int = 10
    token_seconds: float = 0.05
    #: seconds between the comments sent to a queued request
    waiting_seconds: float = 0.05
    #: requests answered at the same time; others wait
    batch: int = 64
    #: requests accepted at the same time; others get 429
    queue: int = 1000
    healthy: bool = True
    #: 'break': ends halfway; 'once': only the first time; 'silent': stays connected and sends
    #: nothing; '400' and '500' are refusals
    faults: dict[str, str] = field(default_factory=dict)


class SlowEngine(ThreadingHTTPServer):
    """Implements the protocol of docs/engine.md; counts the requests."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.manner = Manner()
        self.asked: Counter[str] = Counter()
        self.refused = 0
        self.comments = 0
        self.under_way = 0
        self.peak = 0
        self.lock = threading.Lock()
        self.places = threading.Semaphore(self.manner.batch)
        self.closing = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def behave(self, **changes: object) -> None:
        self.manner = Manner(**changes)  # type: ignore[arg-type]
        self.places = threading.Semaphore(self.manner.batch)


class Handler(BaseHTTPRequestHandler):
    server: SlowEngine

    def do_GET(self) -> None:
        self.send_response(200 if self.server.manner.healthy else 503)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_POST(self) -> None:
        engine = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if "lora" in self.path:
            return self.do_GET()
        question = body["messages"][-1]["content"]
        with engine.lock:
            if engine.under_way >= engine.manner.queue:
                engine.refused += 1
                return self.error_response(429)
            engine.asked[question] += 1
            engine.under_way += 1
            engine.peak = max(engine.peak, engine.under_way)
        try:
            self.answer(question)
        except OSError:
            pass  # the client disconnected
        finally:
            with engine.lock:
                engine.under_way -= 1
        return None

    def error_response(self, status: int) -> None:
        data = json.dumps({"error": {"message": f"Refused with {status}.", "code": status}})
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data.encode())

    def answer(self, question: str) -> None:
        engine, manner = self.server, self.server.manner
        fault = manner.faults.get(question, "")
        if fault == "once" and engine.asked[question] > 1:
            fault = ""
        if fault.isdigit():
            return self.error_response(int(fault))
        self.close_connection = True
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        self.event({"delta": {"role": "assistant", "content": ""}})
        while not engine.places.acquire(timeout=manner.waiting_seconds):
            self.write(": waiting\n\n")
            engine.comments += 1
        try:
            for number in range(manner.tokens):
                if fault == "silent":
                    engine.closing.wait()
                    return None
                if fault in ("break", "once") and number == manner.tokens // 2:
                    return None
                engine.closing.wait(manner.token_seconds)
                last = number == manner.tokens - 1
                self.event(
                    {
                        "delta": {"content": WORD if number else f"{question} "},
                        "token_ids": [7],
                        "finish_reason": "stop" if last else None,
                    }
                )
            self.write("data: [DONE]\n\n")
        finally:
            engine.places.release()
        return None

    def event(self, choice: dict[str, object]) -> None:
        line = {"choices": [{"index": 0, "finish_reason": None, **choice}]}
        self.write(f"data: {json.dumps(line)}\n\n")

    def write(self, text: str) -> None:
        self.wfile.write(text.encode())
        self.wfile.flush()

    def log_message(self, *args: object) -> None:
        """Write no log."""


@contextmanager
def slow_engine() -> Iterator[SlowEngine]:
    """Serve until the block ends; requests still being answered are then closed."""
    with SlowEngine() as engine:
        thread = threading.Thread(target=engine.serve_forever, args=[0.02], daemon=True)
        thread.start()
        try:
            yield engine
        finally:
            engine.closing.set()
            engine.shutdown()
            thread.join()
