"""Questions to a judge over HTTP: what is sent, and what becomes of every kind of response."""

import time
from typing import Any

import pytest
from pytest_django import Settings

from feedback_app.training.gate.judge.client import JudgeClient, JudgeFailed
from feedback_app.web.errors import UserError
from tests.training.gate.judge.server import Asked, JudgeServer, Reply, choose

pytestmark = pytest.mark.slow

KEY = "sk-very-secret"
SCHEMA: dict[str, Any] = {"type": "object"}


def client_of(server: JudgeServer, **changed: Any) -> JudgeClient:
    values: dict[str, Any] = {
        "url": server.url,
        "model": "judge-1",
        "api_key": KEY,
        "seconds": 60,
        "silence": 30,
    }
    return JudgeClient(**(values | changed))


def ask(client: JudgeClient) -> str:
    with client:
        return client.ask([{"role": "user", "content": "Well?"}], schema=SCHEMA)


def failure(client: JudgeClient) -> JudgeFailed:
    with pytest.raises(JudgeFailed) as raised:
        ask(client)
    return raised.value


@pytest.mark.parametrize("end", ["", "/", "/chat/completions"])
def test_request_has_model_key_and_schema(server: JudgeServer, end: str) -> None:
    assert ask(client_of(server, url=server.url + end)) == '{"preferred": "A"}'
    [asked] = server.asked
    assert asked.path == "/v1/chat/completions"
    assert asked.headers["Authorization"] == f"Bearer {KEY}"
    assert asked.headers["Host"] == f"127.0.0.1:{server.server_port}"
    assert asked.body["model"] == "judge-1"
    assert asked.body["temperature"] == 0
    assert asked.body["response_format"]["json_schema"]["schema"] == SCHEMA


def test_server_without_a_key_gets_none(server: JudgeServer) -> None:
    ask(client_of(server, api_key=""))
    assert "Authorization" not in server.asked[0].headers


def test_server_that_knows_no_schema_is_asked_without_and_not_again(server: JudgeServer) -> None:
    def old(asked: Asked) -> Reply:
        known = set(asked.body) <= {"model", "messages"}
        return choose("B") if known else Reply(status=400, raw='{"error": "what?"}')

    server.behaviour = old
    with client_of(server) as client:
        for _ in range(2):
            assert client.ask([], schema=SCHEMA) == '{"preferred": "B"}'
    assert len(server.asked) == 3


@pytest.mark.parametrize(
    ("status", "again", "fatal"),
    [
        (400, False, False),
        (401, False, True),
        (403, False, True),
        (404, False, True),
        (302, False, True),
        (429, True, False),
        (500, True, False),
        (503, True, False),
    ],
)
def test_refusals_say_whether_to_ask_again(
    server: JudgeServer, status: int, again: bool, fatal: bool
) -> None:
    server.behaviour = lambda asked: Reply(
        status=status, raw='{"error": {"message": "Because."}}', headers={"Location": server.url}
    )
    error = failure(client_of(server))
    assert str(error) == f"The server answered {status}: Because."
    assert (error.again, error.fatal) == (again, fatal)
    assert len(server.asked) == (2 if status == 400 else 1)


@pytest.mark.parametrize("status", [200, 401, 500])
def test_key_that_the_server_repeats_is_removed(server: JudgeServer, status: int) -> None:
    def echo(asked: Asked) -> Reply:
        said = f"You sent {asked.headers['Authorization']}"
        return (
            Reply(said)
            if status == 200
            else Reply(status=status, raw=f'{{"error": {{"message": "{said}"}}}}')
        )

    server.behaviour = echo
    text = ask(client_of(server)) if status == 200 else str(failure(client_of(server)))
    assert "You sent Bearer [API key]" in text
    assert KEY not in text


@pytest.mark.parametrize(
    "raw",
    [
        "",
        "<html>",
        "null",
        "[]",
        "{}",
        '{"choices": []}',
        '{"choices": [{"message": {"content": null}}]}',
        '{"choices": [{"message": {"content": 7}}]}',
        "[" * 100_000,
        "\x00",
    ],
)
def test_response_that_is_no_chat_completion_fails(server: JudgeServer, raw: str) -> None:
    server.behaviour = lambda asked: Reply(raw=raw)
    assert "no answer of a chat model" in str(failure(client_of(server)))


def test_endless_response_is_cut(server: JudgeServer) -> None:
    server.behaviour = lambda asked: Reply("x" * 3_000_000)
    assert "larger than 1 MiB" in str(failure(client_of(server)))


def test_characters_that_no_database_stores_are_replaced(server: JudgeServer) -> None:
    raw = '{"choices": [{"message": {"content": "a\\u0000b\\ud800c"}}]}'
    server.behaviour = lambda asked: Reply(raw=raw)
    assert ask(client_of(server)) == "a\ufffdb\ufffdc"


def test_silent_server_fails_after_the_silence(server: JudgeServer) -> None:
    server.behaviour = lambda asked: Reply(silent=True)
    began = time.monotonic()
    error = failure(client_of(server, silence=0.5))
    assert str(error) == "The server did not answer in time"
    assert error.again
    assert time.monotonic() - began < 20


def test_stop_ends_a_question_that_waits(server: JudgeServer) -> None:
    client = client_of(server, silence=300, seconds=300)

    def silent(asked: Asked) -> Reply:
        client.stop.set()
        return Reply(silent=True)

    server.behaviour = silent
    began = time.monotonic()
    failure(client)
    assert time.monotonic() - began < 60


def test_deadline_ends_a_question(server: JudgeServer) -> None:
    server.behaviour = lambda asked: Reply(silent=True)
    assert failure(client_of(server, silence=300, seconds=0.5)).again


def test_server_that_is_down_fails(server: JudgeServer) -> None:
    client = client_of(server)
    server.ended.set()
    server.shutdown()
    server.server_close()
    error = failure(client)
    assert str(error) == "The server could not be reached: ConnectError"
    assert error.again


# -- addresses


def test_private_address_needs_the_operator(server: JudgeServer, settings: Settings) -> None:
    settings.JUDGE_NETWORKS = []
    # networks of webhooks are theirs alone: they show no response
    settings.WEBHOOK_NETWORKS = ["127.0.0.0/8"]
    for host in ("127.0.0.1", "localhost", "169.254.169.254", "[::ffff:10.0.0.1]"):
        with pytest.raises(UserError, match="A judge model must point to a public address"):
            client_of(server, url=f"http://{host}:{server.server_port}/v1")
    assert server.asked == []


def test_production_sends_the_key_in_plain_text_inside_the_own_network_only(
    server: JudgeServer, settings: Settings
) -> None:
    settings.PRODUCTION = True
    ask(client_of(server))
    with pytest.raises(UserError, match="https://"):
        client_of(server, url="http://93.184.215.14/v1")
    client_of(server, url="https://93.184.215.14/v1")


@pytest.mark.parametrize(
    "url",
    [
        "ftp://127.0.0.1/v1",
        "127.0.0.1/v1",
        "http://user:pass@127.0.0.1/v1",
        "http://127.0.0.1/v1?key=1",
        "http://127.0.0.1/v1#x",
        "http://127.0.0.1:99999/v1",
        "http://[::1",
        "http://127.0.0.1\n/v1",
    ],
)
def test_other_urls_are_refused(server: JudgeServer, url: str) -> None:
    with pytest.raises(UserError):
        client_of(server, url=url)
