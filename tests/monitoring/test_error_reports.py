"""Error reports and traces: sent to a local receiver, without text of people."""

import gzip
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from django.conf import settings

from feedback_app.monitoring import error_reports

pytestmark = pytest.mark.slow  # each test starts a process

SECRET = "my-private-conversation"
PERSON = "ann.otator@example.com"
#: A request that fails in a view, and a task that fails, each with text of a person everywhere.
FAIL = f"""
import django; django.setup()
import logging
from celery import shared_task
from django.contrib.auth.decorators import login_not_required
from django.test import Client
from django.urls import path
from django.views.decorators.csrf import csrf_exempt
from feedback_app.config import urls

@csrf_exempt
@login_not_required
def fails(request, secret):
    text = request.POST["text"]
    logging.error("an answer failed: %s", text)
    try:
        raise KeyError(text)
    except KeyError as error:
        raise ValueError("cannot read " + text + " of {PERSON}") from error

@shared_task(name="tests.fails")
def fails_too(text):
    raise RuntimeError(text)

urls.urlpatterns.append(path("fails/<str:secret>/", fails, name="fails"))
client = Client(raise_request_exception=False)
answer = client.post(
    "/fails/{SECRET}/?query={SECRET}",
    {{"text": "{SECRET}"}},
    headers={{"Host": "localhost", "X-Request-ID": "the-request", "Cookie": "a={SECRET}"}},
)
assert answer.status_code == 500, answer.status_code
fails_too.apply(("{SECRET}",), headers={{"request_id": "the-request"}})
client.get("/no/such/{SECRET}/", headers={{"Host": "localhost"}})
"""


class Receiver(ThreadingHTTPServer):
    """Keeps the paths and unpacked bodies of what is posted to it."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.received: list[tuple[str, bytes]] = []


class Answer(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        self.server.received.append((self.path, body))
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def run(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=settings.BASE_DIR,
        env={
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "feedback_app.config.settings",
            "DATABASE_URL": "sqlite://:memory:",
            **env,
        },
        capture_output=True,
        text=True,
        check=False,
    )


def test_errors_are_reported_without_text_of_people(receiver: Receiver) -> None:
    pytest.importorskip("sentry_sdk")
    done = run(FAIL, SENTRY_DSN=f"http://key@127.0.0.1:{receiver.server_port}/1")
    assert done.returncode == 0, done.stderr

    events = [
        json.loads(line)
        for _, body in receiver.received
        for line in body.splitlines()
        if b'"exception"' in line
    ]
    kinds = [[each["type"] for each in event["exception"]["values"]] for event in events]
    assert kinds == [["KeyError", "ValueError"], ["RuntimeError"]]
    for event in events:
        assert event["tags"]["request_id"] == "the-request"
        frames = event["exception"]["values"][-1]["stacktrace"]["frames"]
        assert frames[-1]["function"].startswith("fails")
    everything = b"\n".join(body for _, body in receiver.received).decode()
    assert SECRET not in everything
    assert PERSON not in everything
    assert "the-request" in everything


def test_spans_are_sent_without_text_of_people(receiver: Receiver) -> None:
    pytest.importorskip("opentelemetry.sdk")
    url = f"http://127.0.0.1:{receiver.server_port}"
    done = run(FAIL, OTEL_EXPORTER_OTLP_ENDPOINT=url)
    assert done.returncode == 0, done.stderr

    assert {path for path, _ in receiver.received} == {"/v1/traces"}
    everything = b"\n".join(body for _, body in receiver.received)
    for name in (b"POST fails", b"tests.fails", b"GET unmatched", b"the-request", b"FAILURE"):
        assert name in everything
    assert SECRET.encode() not in everything
    assert PERSON.encode() not in everything


def test_nothing_is_loaded_or_sent_by_default() -> None:
    code = f"""{FAIL}
import sys
from feedback_app.monitoring import tracing
print("sentry_sdk" in sys.modules, tracing._tracer)
"""
    done = run(code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "False None"


@pytest.mark.parametrize(
    ("variable", "package", "extra"),
    [
        ("SENTRY_DSN", "sentry_sdk", "sentry"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "opentelemetry.sdk", "otel"),
    ],
)
def test_variable_without_its_extra_is_a_clear_error(
    variable: str, package: str, extra: str
) -> None:
    missing = f"import sys; sys.modules[{package!r}] = None; import django; django.setup()"
    done = run(missing, **{variable: "http://key@127.0.0.1:9/1"})
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert variable in last
    assert f"pip install 'prospect[{extra}]'" in last


def test_log_lines_without_an_exception_are_not_reported() -> None:
    assert error_reports.allowed_event({"message": SECRET, "level": "error"}, {}) is None


def test_path_of_a_request_without_a_view_is_removed() -> None:
    event = {"transaction": f"/s/{SECRET}/", "exception": {"values": [{"type": "ValueError"}]}}
    assert SECRET not in str(error_reports.allowed_event(event, {}))
