"""The threads between uvicorn and Django, over real connections."""

import http.client
import re
import select
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
import uvicorn
from django.conf import settings
from django.urls import get_resolver, reverse

from feedback_app.config import threads
from feedback_app.config.asgi import MONITORING, WAITS_FOR_ENGINE
from feedback_app.config.http_protocol import DeadlineProtocol
from feedback_app.config.threads import ThreadedWsgi
from tests.engines import wait_until

Serve = Callable[[threads.WsgiApp], http.client.HTTPConnection]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """`serve(app)`: run a WSGI application and return a connection to it."""
    ends: list[Callable[[], object]] = []

    def start(app: threads.WsgiApp) -> http.client.HTTPConnection:
        config = uvicorn.Config(
            ThreadedWsgi(app, waits=lambda path: path == "/waits", monitoring=["/health"]),
            http=DeadlineProtocol,
            ws="none",
            log_config=None,
            timeout_graceful_shutdown=1,
        )
        server = uvicorn.Server(config)
        listening = socket.create_server(("127.0.0.1", 0))
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        wait_until(lambda: server.started)
        connection = http.client.HTTPConnection(*listening.getsockname(), timeout=60)

        def end() -> None:
            connection.close()
            server.should_exit = True
            thread.join(60)
            listening.close()

        ends.append(end)
        return connection

    yield start
    for end in ends:
        end()


def app_of(body: Iterable[bytes], *headers: tuple[str, str]) -> threads.WsgiApp:
    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        start_response("200 OK", list(headers))
        return body

    return app


def test_request_reaches_the_application_as_it_was_sent(serve: Serve) -> None:
    seen: list[dict[str, Any]] = []

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        environ["body"] = environ["wsgi.input"].read()
        seen.append(environ)
        start_response("201 Created", [("Content-Length", "2"), ("Set-Cookie", " a=b")])
        return [b"ok"]

    connection = serve(app)
    connection.putrequest("POST", "/caf%C3%A9/a%2Fb?q=1%20&r", skip_host=True)
    for name, value in (
        ("Host", "example.com"),
        ("Content-Length", "3"),
        ("Content-Type", "text/plain"),
        ("X-Forwarded-Proto", "http"),
        ("X_Forwarded_Proto", "https"),
        ("Cookie", "one=1"),
        ("Cookie", "two=2"),
    ):
        connection.putheader(name, value)
    connection.endheaders(b"abc")
    response = connection.getresponse()

    assert (response.status, response.read()) == (201, b"ok")
    assert response.headers["Set-Cookie"] == "a=b"
    [environ] = seen
    assert environ["PATH_INFO"].encode("latin-1").decode() == "/café/a/b"
    assert (environ["QUERY_STRING"], environ["body"]) == ("q=1%20&r", b"abc")
    assert (environ["CONTENT_TYPE"], environ["CONTENT_LENGTH"]) == ("text/plain", "3")
    assert environ["HTTP_X_FORWARDED_PROTO"] == "http"
    assert environ["HTTP_COOKIE"] == "one=1; two=2"
    assert environ["REMOTE_ADDR"] == "127.0.0.1"


def test_chunked_body_is_read_with_its_length(serve: Serve) -> None:
    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]

    connection = serve(app)
    connection.request("POST", "/", iter([b"ab", b"cd"]), encode_chunked=True)
    assert connection.getresponse().read() == b"abcd"


def test_large_body_is_read_while_it_arrives(serve: Serve) -> None:
    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        count = 0
        while piece := environ["wsgi.input"].read(100_000):
            count += len(piece)
        text = f"{count} {threading.current_thread().name}".encode()
        start_response("200 OK", [("Content-Length", str(len(text)))])
        return [text]

    connection = serve(app)
    connection.request("POST", "/", b"x" * 7_000_001)
    count, name = connection.getresponse().read().split()
    assert count == b"7000001"
    assert name.startswith(b"upload")


def test_large_body_is_refused_while_all_upload_threads_are_busy(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads.Threads, "free", False)

    connection = serve(app_of([b""]))
    connection.putrequest("POST", "/")
    connection.putheader("Content-Length", "7000000")
    connection.endheaders(b"x")
    response = connection.getresponse()

    assert response.status == 503
    assert int(response.headers["Retry-After"]) > 0


def test_slow_body_is_answered_with_408(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "SILENCE_SECONDS", 0.1)
    connection = serve(app_of([b""]))
    connection.putrequest("POST", "/")
    connection.putheader("Content-Length", "10")
    connection.endheaders(b"x")
    assert connection.getresponse().status == 408


class Pieces:
    """A response that never ends by itself; it knows when it was closed, and by which thread."""

    def __init__(self) -> None:
        self.closed = threading.Event()
        self.thread = ""

    def __iter__(self) -> Iterator[bytes]:
        self.thread = threading.current_thread().name
        while True:
            yield b"piece"
            self.closed.wait(0.01)

    def close(self) -> None:
        self.closed.set()


@pytest.mark.parametrize(("method", "path"), [("POST", "/waits"), ("GET", "/export")])
def test_stream_is_closed_when_its_reader_disconnects(serve: Serve, method: str, path: str) -> None:
    pieces = Pieces()
    connection = serve(app_of(pieces))
    connection.request(method, path)
    response = connection.getresponse()
    assert response.read(5) == b"piece"
    response.close()
    connection.close()

    assert pieces.closed.wait(60)
    assert pieces.thread.startswith("answer")


def test_stream_that_fails_does_not_look_complete(serve: Serve) -> None:
    def broken() -> Iterator[bytes]:
        yield b"half"
        raise RuntimeError("broken")

    connection = serve(app_of(broken()))
    connection.request("GET", "/")
    with pytest.raises(http.client.IncompleteRead):
        connection.getresponse().read()


def test_pages_are_answered_while_all_answer_threads_are_busy(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "ANSWER_THREADS", 1)
    pieces = Pieces()

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/waits":
            start_response("200 OK", [])
            return pieces
        start_response("200 OK", [("Content-Length", "4")])
        return [b"page"]

    connection = serve(app)
    connection.request("POST", "/waits")
    stream = connection.getresponse()
    other = http.client.HTTPConnection(connection.host, connection.port, timeout=60)
    other.request("POST", "/waits")
    refused = other.getresponse()
    assert (refused.status, refused.read()) == (503, threads.BUSY.encode())
    other.request("GET", "/page")
    assert other.getresponse().read() == b"page"
    other.close()
    stream.close()
    pieces.close()


def test_pages_are_refused_once_too_many_wait_and_health_checks_are_not(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "PAGE_THREADS", 1)
    monkeypatch.setattr(threads, "PAGES_WAITING", 1)
    entered, ends = threading.Event(), threading.Event()

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        entered.set()
        ends.wait(60)
        start_response("200 OK", [("Content-Length", "4")])
        return [b"page"]

    connection = serve(app)

    def requested(path: str) -> http.client.HTTPConnection:
        other = http.client.HTTPConnection(connection.host, connection.port, timeout=60)
        other.request("GET", path)
        return other

    try:
        taken = [requested("/page")]
        assert entered.wait(60)
        # one of the two waits, the other is refused: which of them is read first is not known
        taken += [requested("/page"), requested("/page")]
        ready, _, _ = select.select([other.sock for other in taken], [], [], 60)
        [refused] = [other for other in taken if other.sock in ready]
        answer = refused.getresponse()
        assert (answer.status, answer.read()) == (503, threads.BUSY.encode())
        assert answer.headers["Retry-After"] == str(threads.RETRY_SECONDS)
        taken.remove(refused)
        health = requested("/health")
        taken.append(health)
        # a refusal would come at once
        assert select.select([health.sock], [], [], 1)[0] == []
    finally:
        ends.set()
    assert [other.getresponse().read() for other in taken] == [b"page"] * 3
    for other in [refused, *taken]:
        other.close()


def test_monitoring_is_what_is_exempt_from_the_redirect_to_https() -> None:
    exempt = [re.compile(pattern) for pattern in settings.SECURE_REDIRECT_EXEMPT]
    assert all(any(one.search(path.lstrip("/")) for one in exempt) for path in MONITORING)
    assert {reverse("healthz"), reverse("readyz"), reverse("metrics")} <= set(MONITORING)


ENGINE_VIEWS = {
    "conversation-new",
    "conversation-send",
    "turn-again",
    "comparison-answer",
    "shared-send",
    "shared-again",
    "release",
    "split-new",
}


def test_paths_that_wait_for_an_engine_are_those_of_their_views() -> None:
    chosen = {"slug": "bot", "pk": 1, "turn": 1, "side": "left", "secret": "s", "name": "bot@1"}
    uuid = "0b7d3c1e-7f5c-4f0e-9a53-6a4c2f3a0d11"
    found = set()
    for name, parts in get_resolver().reverse_dict.lists():
        for possibilities, *_ in parts:
            for _, wanted in possibilities:
                values = {key: chosen[key] for key in wanted if key in chosen}
                for pk in (1, uuid):
                    given = values | ({"pk": pk} if "pk" in wanted else {})
                    if isinstance(name, str) and set(given) == set(wanted):
                        found |= {name} if waits(name, given) else set()
    assert found == ENGINE_VIEWS
    assert WAITS_FOR_ENGINE.fullmatch(reverse("gateway:chat_completions"))


def waits(name: str, values: dict[str, object]) -> bool:
    try:
        return WAITS_FOR_ENGINE.fullmatch(reverse(name, kwargs=values)) is not None
    except Exception:
        return False
