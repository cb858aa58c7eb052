"""What the gateway stores while an engine has accepted a request but sent no token yet."""

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from django.utils import timezone
from pytest_django import Settings

from feedback_app.accounts.models import Scope, User
from feedback_app.feedback.models import Completion, Project
from feedback_app.feedback.tokens.services import token_create
from tests.api.gateway_client import Program, fault
from tests.served import MODEL

pytestmark = [pytest.mark.django_db, pytest.mark.slow]
READING = 0.4


class Slow(ThreadingHTTPServer):
    """Accepts a request, delays, and then sends one token or closes the connection."""

    says: str = "Hi"
    spoke: float = 0

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)


class Handler(BaseHTTPRequestHandler):
    server: Slow

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        self.event({"delta": {"role": "assistant", "content": ""}})
        time.sleep(READING)
        self.server.spoke = timezone.now().timestamp()
        if self.server.says:
            self.event({"delta": {"content": self.server.says}, "finish_reason": "stop"})
            self.wfile.write(b"data: [DONE]\n\n")
        else:
            error = {"error": {"message": "Out of memory.", "type": "server_error"}}
            self.wfile.write(f"data: {json.dumps(error)}\n\n".encode())

    def event(self, choice: dict[str, object]) -> None:
        line = {"choices": [{"index": 0, "finish_reason": None, **choice}]}
        self.wfile.write(f"data: {json.dumps(line)}\n\n".encode())
        self.wfile.flush()

    def log_message(self, *args: object) -> None:
        """Write no log."""


@pytest.fixture
def slow(settings: Settings) -> Iterator[Slow]:
    with Slow() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        settings.ENGINES = {MODEL: f"http://127.0.0.1:{server.server_port}"}
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def program(project: Project, admin: User) -> Program:
    Project.objects.filter(pk=project.pk).update(base_model=MODEL)
    return Program(*token_create(project=project, name="Shop", scopes=list(Scope), by=admin))


def test_answer_is_stored_before_the_first_token(slow: Slow, program: Program) -> None:
    answer = program.ask()

    assert answer.json()["choices"][0]["message"]["content"] == "Hi"
    kept = Completion.objects.get()
    assert (kept.text, kept.finish_reason) == ("Hi", "stop")
    # the first token must not wait for queries after it
    assert kept.created_at.timestamp() < slow.spoke - READING / 2


@pytest.mark.parametrize("stream", [False, True])
def test_engine_error_before_the_first_token_stores_nothing(
    stream: bool, slow: Slow, program: Program
) -> None:
    slow.says = ""

    refused = program.ask(stream=stream)

    assert fault(refused)[0] >= 500
    assert not Completion.objects.exists()
