"""Many half-sent requests, or many open streams of one person: everybody else is still served."""

import asyncio
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from django.conf import settings
from django.test import Client
from django.urls import reverse

from feedback_app.accounts.models import User
from feedback_app.config.threads import ANSWER_THREADS
from feedback_app.feedback.models import Project
from feedback_app.localstack.stack import Stack
from feedback_app.serving.models import OpenAnswer
from tests.engines import PATIENCE, wait_until
from tests.serving.engine.slow_engine import SlowEngine, slow_engine
from tests.stacks import database_url

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow, pytest.mark.long]

HALF_SENT = 140
SIGN_IN = b"POST /accounts/login/ HTTP/1.1\r\nHost: localhost\r\n"
LONG_BODY = SIGN_IN + b"Content-Length: 9000000\r\n\r\na="
STREAMS = 150
CSRF = "c" * 32


@pytest.fixture
def engine() -> Iterator[SlowEngine]:
    with slow_engine() as running:
        # two hours: an answer that ends by itself proves nothing
        running.behave(tokens=36_000, token_seconds=0.2, batch=1000)
        yield running


@pytest.fixture
def web(engine: SlowEngine, project: Project, tmp_path: Path) -> Iterator[Stack]:
    """The web process of the Procfile, on the test database and the slow engine."""
    env: dict[str, str | None] = {
        "PROSPECT_ENV": "test",
        "PROSPECT_VAR": str(tmp_path / "var"),
        "DATABASE_URL": database_url(),
        "BASE_MODEL": project.base_model,
        "ENGINE_URL": engine.url,
        "ENGINES": None,
        "REDIS_URL": None,
        "PORT": None,
    }
    with Stack(env, ["web"]) as stack:
        yield stack


@contextmanager
def half_sent(stack: Stack, start: bytes) -> Iterator[list[socket.socket]]:
    """Open connections that send `start` and then nothing."""
    where = urlsplit(stack.url)
    with ExitStack() as sockets:
        opened = []
        for _ in range(HALF_SENT):
            connection = socket.create_connection((where.hostname or "", where.port or 0))
            sockets.enter_context(connection)
            connection.sendall(start)
            opened.append(connection)
        yield opened


def serves(stack: Stack) -> bool:
    """Return whether health and a page are answered."""
    with httpx.Client(base_url=stack.url, timeout=PATIENCE / 4) as client:
        try:
            return all(client.get(path).is_success for path in ("/health", "/accounts/login/"))
        except httpx.TransportError:
            return False


def closed(connection: socket.socket) -> bool:
    """Return whether the server has closed the connection, perhaps after an error response."""
    connection.settimeout(0.01)
    try:
        while connection.recv(4096):
            pass
    except TimeoutError:
        return False
    except OSError:
        pass
    return True


@pytest.mark.parametrize(
    "start",
    [
        pytest.param(b"", marks=pytest.mark.long),
        b"GET /accounts/login/ HTTP/1.1\r\nHost: localhost\r\nX-",
        pytest.param(SIGN_IN + b"Content-Length: 500\r\n\r\nlogin=", marks=pytest.mark.long),
        pytest.param(LONG_BODY, marks=pytest.mark.long),
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500\r\n\r\n{",
    ],
    ids=["nothing", "head", "body", "long body", "chat"],
)
def test_half_sent_requests_take_nothing_from_others_and_are_closed(
    web: Stack, start: bytes
) -> None:
    with half_sent(web, start) as connections:
        assert serves(web)
        wait_until(lambda: all(map(closed, connections)))
        assert serves(web)


def cookies_of(user: User) -> dict[str, str]:
    client = Client()
    client.force_login(user)
    name = settings.SESSION_COOKIE_NAME
    return {name: client.cookies[name].value, settings.CSRF_COOKIE_NAME: CSRF}


async def many_streams(
    stack: Stack, path: str, cookies: dict[str, str]
) -> tuple[Counter[int], bool, list[str]]:
    """Open streams of one person; return their statuses, whether the site still serves, and the
    Retry-After header of each refusal."""
    headers = {"Accept": "text/event-stream", "X-CSRFToken": CSRF}
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(
        base_url=stack.url,
        cookies=cookies,
        headers=headers,
        timeout=PATIENCE / 2,
        limits=limits,
    ) as client:

        async def begin() -> httpx.Response:
            request = client.build_request("POST", path, data={"text": "Hello?"})
            return await client.send(request, stream=True)

        async with asyncio.timeout(PATIENCE):
            responses = await asyncio.gather(*(begin() for _ in range(STREAMS)))
        good = await asyncio.to_thread(serves, stack)
        retry = [
            each.headers.get("Retry-After", "") for each in responses if each.status_code != 200
        ]
        for each in responses:
            await each.aclose()
    return Counter(each.status_code for each in responses), good, retry


def test_one_person_cannot_open_all_streams(
    web: Stack, engine: SlowEngine, project: Project, viewer: User
) -> None:
    path = reverse("conversation-new", args=[project.slug])

    statuses, good, retry = asyncio.run(many_streams(web, path, cookies_of(viewer)))

    assert good
    assert statuses[200] == settings.ANSWERS_PER_PERSON
    # more requests than the process has threads for answers: the rest may find none free
    assert statuses[429] >= ANSWER_THREADS - settings.ANSWERS_PER_PERSON
    assert statuses[429] + statuses[503] == STREAMS - settings.ANSWERS_PER_PERSON
    assert all(int(seconds) > 0 for seconds in retry)
    # the readers have gone: the engine is free, and so are the places
    wait_until(lambda: engine.under_way == 0)
    wait_until(lambda: not OpenAnswer.objects.exists())
