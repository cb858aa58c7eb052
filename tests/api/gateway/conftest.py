"""A server of OpenAI's protocol that calls tools as vLLM does, and a program that asks it."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from pytest_django import Settings

from feedback_app.accounts.models import Scope, User
from feedback_app.feedback.models import Project
from feedback_app.feedback.tokens.services import token_create
from tests.api.gateway_client import Program

BASE = "caller"


def event(**choice: Any) -> str:
    body = {
        "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 7, "model": BASE,
        "choices": [{"index": 0, "finish_reason": None, "token_ids": [1], **choice}],
    }  # fmt: skip
    return f"data: {json.dumps(body)}\n\n"


def part(**function: str) -> dict[str, Any]:
    return {"tool_calls": [{"index": 0, "function": function}]}


STREAM = (
    ": waiting\n\n"
    + event(delta={"role": "assistant", "content": ""})
    + event(delta={"tool_calls": [{"index": 0, "id": "call-9", "function": {"name": "weather"}}]})
    + event(delta=part(arguments='{"city": '))
    + event(delta=part(arguments='"Oslo"}'))
    + event(delta={}, finish_reason="tool_calls")
    + 'data: {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4, '
    + '"total_tokens": 7}}\n\ndata: [DONE]\n\n'
)
#: The answer to a request without tools.
TEXT_STREAM = (
    event(delta={"role": "assistant", "content": ""})
    + event(delta={"content": "It rains."})
    + event(delta={}, finish_reason="stop")
    + "data: [DONE]\n\n"
)


@pytest.fixture
def asked(settings: Settings) -> Iterator[list[dict[str, Any]]]:
    """Start a server that calls tools; return the bodies that it was sent."""
    bodies: list[dict[str, Any]] = []

    class Caller(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            calls = "tools" in bodies[-1] and bodies[-1].get("tool_choice") != "none"
            stream = STREAM if calls else TEXT_STREAM
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Content-Length", str(len(stream)))
            self.end_headers()
            self.wfile.write(stream.encode())

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Caller) as server:
        threading.Thread(target=server.serve_forever, args=[0.02], daemon=True).start()
        settings.ENGINES = {BASE: f"http://127.0.0.1:{server.server_port}"}
        settings.ENGINE_TOOLS = [BASE]
        yield bodies
        server.shutdown()


@pytest.fixture
def program(project: Project, admin: User) -> Program:
    project.base_model = BASE
    project.save()
    return Program(*token_create(project=project, name="Shop", scopes=list(Scope), by=admin))
