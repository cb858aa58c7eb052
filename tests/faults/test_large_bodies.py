"""Fault 34: bodies that are too large, or have no length, are refused before they are read."""

import contextlib
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse

from feedback_app.accounts.models import User
from feedback_app.feedback.imports import uploads
from feedback_app.feedback.models import ImportJob, Project
from feedback_app.localstack.stack import Stack
from tests.engines import PATIENCE

pytestmark = pytest.mark.django_db
MEGABYTE = 1_000_000
FORM = "multipart/form-data; boundary=x"
PART = b'--x\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n'
LOGIN = "/accounts/login/"
COOKIE = "a" * 32  # with a cookie, the CSRF check looks for its token in the body


class Unread:
    """A request's body that fails the test when it is read."""

    def read(self, *_: object) -> bytes:
        raise AssertionError("the body was read")

    readline = read


def announce(client: Client, path: str, size: int, **extra: Any) -> Any:
    """Post a form of this size of which nothing may be read."""
    given = {"CONTENT_LENGTH": str(size), "wsgi.input": Unread(), **extra}
    return client.generic("POST", path, b"", FORM, **given)


@pytest.fixture
def strict() -> Client:
    """Return a client whose posts need a CSRF token, as a browser's do."""
    client = Client(enforce_csrf_checks=True)
    client.cookies["csrftoken"] = COOKIE
    return client


@pytest.mark.parametrize(
    "path", [LOGIN, "/me/erase/", "/accounts/password/reset/", "/s/secret/send/"]
)
def test_large_body_of_a_stranger_is_refused_unread(path: str, strict: Client) -> None:
    answer = announce(strict, path, 300 * MEGABYTE)

    assert answer.status_code == 413
    assert "2 MB" in answer.content.decode()


def test_body_without_a_length_is_refused_unread(strict: Client) -> None:
    chunked = {"HTTP_TRANSFER_ENCODING": "chunked", "CONTENT_LENGTH": ""}

    answer = announce(strict, LOGIN, 0, **chunked)

    assert answer.status_code == 411
    assert "Content-Length" in answer.content.decode()


def test_large_body_of_an_htmx_request_is_reported_in_the_page(
    admin: User, project: Project, as_user: Callable[[User], Client]
) -> None:
    path = reverse("project-settings", args=["bot"])
    answer = announce(as_user(admin), path, 3 * MEGABYTE, HTTP_HX_REQUEST="true")

    assert answer.status_code == 413
    assert "2 MB" in answer["HX-Trigger"]


def test_upload_is_read_only_for_people_who_may_import(
    strict: Client, project: Project, admin: User, annotator: User, outsider: User
) -> None:
    path = reverse("imports", args=["bot"])

    assert LOGIN in announce(strict, path, 300 * MEGABYTE)["Location"]
    for user, status in ((annotator, 403), (outsider, 404)):
        strict.force_login(user)
        assert announce(strict, path, 300 * MEGABYTE).status_code == status
    strict.force_login(admin)
    too_large = announce(strict, path, 2_100 * MEGABYTE)
    assert too_large.status_code == 413
    assert "2 GB" in too_large.content.decode()


def test_upload_above_the_limit_of_forms_is_accepted_with_a_csrf_token_only(
    strict: Client, project: Project, admin: User, settings: Any, tmp_path: Path
) -> None:
    settings.ARTIFACT_ROOT = tmp_path
    strict.force_login(admin)
    path = reverse("imports", args=["bot"])
    row = b'{"prompt": "Hi", "completion": "%s", "label": true}\n' % (b"x" * 90)

    def send(**fields: str) -> int:
        file = SimpleUploadedFile("many.jsonl", row * 30_000)
        return strict.post(path, {"file": file, **fields}).status_code

    assert send() == 403
    assert not ImportJob.objects.exists()
    assert send(csrfmiddlewaretoken=COOKIE) == 302
    assert Path(ImportJob.objects.get().path).stat().st_size > 2 * MEGABYTE
    assert uploads.UPLOAD_LIMIT > settings.DATA_UPLOAD_MAX_MEMORY_SIZE


# -- a real server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Run the web process of the Procfile; yield its URL and the directory of temporary files."""
    directory = tmp_path_factory.mktemp("server")
    temporary = directory / "tmp"
    temporary.mkdir()
    env: dict[str, str | None] = {
        "PROSPECT_ENV": "test",
        "PROSPECT_VAR": str(directory / "var"),
        "DATABASE_URL": None,
        "REDIS_URL": None,
        "PORT": None,
        "TMPDIR": str(temporary),
    }
    with Stack(env, ["web"]) as stack:
        yield stack.url, temporary


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["length", "chunked"])
def test_three_hundred_megabytes_posted_to_the_sign_in_page_write_no_file(
    kind: str, server: tuple[str, Path]
) -> None:
    url, temporary = server
    where = urlsplit(url)
    how = "Content-Length: 300000000" if kind == "length" else "Transfer-Encoding: chunked"
    head = f"POST {LOGIN} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {FORM}\r\n{how}\r\n"
    head += f"Cookie: csrftoken={COOKIE}\r\n\r\n"
    piece = PART + b"x" * MEGABYTE
    body = piece if kind == "length" else b"%x\r\n%s\r\n" % (len(piece), piece)
    answer = b""
    known = set(temporary.iterdir())  # of the processes
    with socket.create_connection((where.hostname or "", where.port or 0), PATIENCE) as sock:
        sock.sendall(head.encode())
        for _ in range(3):  # more than is read before a length is asked for
            sock.sendall(body)
        sock.settimeout(0.05)
        while not answer:
            assert set(temporary.iterdir()) == known, "the body is written to a file"
            with contextlib.suppress(TimeoutError):
                answer = sock.recv(4096)

    assert answer.split()[1] == (b"413" if kind == "length" else b"411")
    assert set(temporary.iterdir()) == known
