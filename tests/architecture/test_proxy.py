"""The Caddyfile, tried with a real Caddy: TLS, headers, limits and streams."""

import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from django.conf import settings
from django.urls import resolve

from feedback_app.feedback.imports.uploads import UPLOAD_LIMIT
from feedback_app.web.bodies import APIS, OWN_LIMIT

pytestmark = pytest.mark.slow

CADDY = Path(sys.executable).with_name("caddy")
CADDYFILE = Path(settings.BASE_DIR) / "deploy" / "Caddyfile"
HOST = "localhost"  # Caddy signs its certificate itself
LARGE_PATHS = [
    "/projects/bot/import/",
    "/projects/bot/runs/import/",
    "/v1/chat/completions",
    "/api/v1/projects/bot/imports",
]


@dataclass
class Upstream:
    """A server in place of `web`: keeps the headers of requests; `/stream` waits for `go_on`."""

    port: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    path: str = ""
    go_on: threading.Event = field(default_factory=threading.Event)


@dataclass
class Proxy:
    https: str
    http: str
    upstream: Upstream
    client: httpx.Client


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    state = Upstream()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

        def do_GET(self) -> None:
            state.headers = {name.lower(): value for name, value in self.headers.items()}
            state.path = self.path
            self.send_response(200)
            self.send_header("Server", "web")
            if self.path != "/stream":
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"ok")
                return
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for piece in (b"data: first\n\n", b"data: second\n\n", b""):
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                self.wfile.flush()
                if piece == b"data: first\n\n":
                    assert state.go_on.wait(60)

        def do_POST(self) -> None:
            left = int(self.headers["Content-Length"])
            while left and (read := self.rfile.read(min(left, 1 << 16))):
                left -= len(read)
            self.do_GET()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.port = server.server_address[1]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield state
    state.go_on.set()
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def proxy(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """Caddy with the Caddyfile; only ports and addresses are those of this test."""
    directory = tmp_path_factory.mktemp("caddy")
    http, https, health = free_port(), free_port(), free_port()
    ports = f"{{\n\thttp_port {http}\n\thttps_port {https}\n\tskip_install_trust\n"
    text = CADDYFILE.read_text()
    assert "\n{\n" in text
    text = text.replace("\n{\n", f"\n{ports}", 1)
    text = text.replace("web:8000", f"127.0.0.1:{upstream.port}").replace("2020", str(health))
    config = directory / "Caddyfile"
    config.write_text(text)
    log = (directory / "log").open("w+")
    env = {"PATH": os.environ["PATH"], "HOME": str(directory), "SITE_ADDRESS": HOST}
    child = subprocess.Popen(
        [CADDY, "run", "--adapter", "caddyfile", "--config", config],
        env=env,
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    client = httpx.Client(verify=context, timeout=60, trust_env=False)
    found = Proxy(f"https://{HOST}:{https}", f"http://127.0.0.1:{health}", upstream, client)
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                client.get(f"{found.https}/ready")
                break
            except httpx.TransportError:
                assert child.poll() is None, Path(log.name).read_text()
                assert time.monotonic() < deadline, Path(log.name).read_text()
                time.sleep(0.1)
        yield found
    finally:
        client.close()
        child.terminate()
        child.wait(timeout=60)
        log.close()


def test_caddyfile_is_valid_and_formatted() -> None:
    env = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "SITE_ADDRESS": "p.example.com"}
    for arguments in (["validate", "--adapter", "caddyfile", "--config"], ["fmt", "--diff"]):
        done = subprocess.run(
            [CADDY, *arguments, CADDYFILE], env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr + done.stdout


def test_forwarded_headers_of_clients_are_replaced(proxy: Proxy) -> None:
    forged = {"X-Forwarded-For": "1.2.3.4", "X-Forwarded-Proto": "http", "X-Forwarded-Host": "x"}

    answer = proxy.client.get(f"{proxy.https}/", headers=forged)

    assert answer.status_code == 200
    assert "server" not in answer.headers
    assert proxy.upstream.headers["x-forwarded-for"] in {"127.0.0.1", "::1"}
    assert proxy.upstream.headers["x-forwarded-proto"] == "https"
    assert proxy.upstream.headers["host"].split(":")[0] == HOST


def test_stream_is_not_buffered(proxy: Proxy) -> None:
    with proxy.client.stream("GET", f"{proxy.https}/stream") as answer:
        pieces = answer.iter_text()
        assert next(pieces) == "data: first\n\n"
        proxy.upstream.go_on.set()
        assert "".join(pieces) == "data: second\n\n"


def test_body_is_limited_except_for_imports_and_the_apis(proxy: Proxy) -> None:
    body = b"x" * 3_100_000
    assert proxy.client.post(f"{proxy.https}/projects/bot/", content=body).status_code == 413
    for path in LARGE_PATHS:
        assert proxy.client.post(f"{proxy.https}{path}", content=body).status_code == 200, path


def test_limits_of_the_proxy_are_above_those_of_the_application() -> None:
    text = CADDYFILE.read_text()
    assert settings.DATA_UPLOAD_MAX_MEMORY_SIZE < 3_000_000
    assert "max_size 3MB" in text
    assert UPLOAD_LIMIT < 2_100_000_000
    assert "max_size 2100MB" in text
    exempt = [resolve(path) for path in LARGE_PATHS]
    assert {match.view_name for match in exempt} >= OWN_LIMIT
    assert {name for match in exempt for name in match.namespaces} >= APIS


def test_health_check_asks_the_application(proxy: Proxy) -> None:
    assert proxy.client.get(f"{proxy.http}/").status_code == 200
    assert proxy.upstream.path == "/health"
    assert proxy.upstream.headers["host"] == HOST
