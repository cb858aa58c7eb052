"""The gateway against a real engine: answers, streams, refusals, and what it stores."""

import json
import shutil
from collections.abc import Callable, Generator
from typing import Any

import httpx
import pytest
from django.http import StreamingHttpResponse
from django.test import Client
from pytest_django import Settings

from feedback_app.accounts.models import ApiToken, Scope, User
from feedback_app.api.gateway import answers
from feedback_app.api.gateway.payloads import StartedEvents, sse
from feedback_app.feedback.models import Completion, Project, Prompt
from feedback_app.feedback.prompts.services import content_hash
from feedback_app.feedback.tokens.services import token_create, token_revoke
from feedback_app.serving.releases.services import release_promote
from tests.api.gateway_client import CHAT, HELLO, Program, fault, hang_up
from tests.engines import RunningEngine, wait_until
from tests.served import MODEL, MakeAdapter

pytestmark = [pytest.mark.django_db, pytest.mark.slow]
As = Callable[[User], Client]
CANCELLED = 'prospect_engine_requests_total{outcome="cancelled"}'


@pytest.fixture
def program(served: Project, admin: User) -> Program:
    return Program(*token_create(project=served, name="Shop", scopes=list(Scope), by=admin))


def chunks(response: StreamingHttpResponse) -> list[dict[str, Any]]:
    """Return the events of a stream that ended with [DONE]."""
    assert response["Content-Type"] == "text/event-stream"
    text = b"".join(response.streaming_content).decode()  # type: ignore[arg-type]
    *events, done, rest = text.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    return [json.loads(event.removeprefix("data: ")) for event in events]


def metric(engine: RunningEngine, name: str) -> float:
    lines = httpx.get(f"{engine.url}/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


# -- answers


def test_answer_has_openais_format_and_is_stored_with_its_ids(program: Program) -> None:
    answer = program.ask(model="base", temperature=0).json()

    completion = Completion.objects.get()
    [choice] = answer["choices"]
    assert answer["object"] == "chat.completion"
    assert answer["model"] == "base"
    assert (answer["id"], answer["completion_id"]) == (f"cmpl-{completion.pk}", completion.pk)
    assert choice["message"] == {"role": "assistant", "content": completion.text}
    assert choice["finish_reason"] == completion.finish_reason == "length"
    assert (completion.source, completion.version, completion.queued) == ("api", "base", False)
    assert completion.prompt.messages == HELLO
    assert completion.prompt.source == "api"
    assert completion.system_prompt == "Be brief."
    usage = answer["usage"]
    assert usage["prompt_tokens"] == len(completion.prompt_token_ids) > 0
    assert usage["completion_tokens"] == len(completion.token_ids) == 8
    assert usage["total_tokens"] == sum(
        usage[name] for name in ("prompt_tokens", "completion_tokens")
    )


def test_metadata_says_whose_answer_it_is(program: Program) -> None:
    program.ask(metadata={"user_group": "free plan", "message_id": "m-42"})
    program.ask()

    first, second = Completion.objects.order_by("pk")
    assert (first.user_group, first.message_id) == ("free plan", "m-42")
    assert (second.user_group, second.message_id) == ("Shop", "")
    for wrong in ({"user_group": "x" * 41}, {"message_id": ""}, {"other": "x"}, "free"):
        assert program.ask(metadata=wrong).status_code == 400


def test_stream_chunks_add_up_to_the_answer_and_carry_its_id(program: Program) -> None:
    whole = program.ask(temperature=0).json()

    streamed = program.ask(temperature=0, stream=True, stream_options={"include_usage": True})
    *pieces, last, usage = chunks(streamed)

    completion = Completion.objects.latest("pk")
    said = "".join(piece["choices"][0]["delta"].get("content", "") for piece in pieces)
    assert said == completion.text == whole["choices"][0]["message"]["content"]
    assert pieces[0]["choices"][0]["delta"]["role"] == "assistant"
    assert {chunk["id"] for chunk in (*pieces, last, usage)} == {f"cmpl-{completion.pk}"}
    assert {chunk["completion_id"] for chunk in (*pieces, last)} == {completion.pk}
    assert [piece["choices"][0]["finish_reason"] for piece in pieces] == [None] * len(pieces)
    assert last["choices"] == [{"index": 0, "delta": {}, "finish_reason": "length"}]
    assert (usage["choices"], usage["usage"]) == ([], whole["usage"])
    assert completion.token_ids == Completion.objects.earliest("pk").token_ids
    assert streamed["X-Accel-Buffering"] == "no"


def test_stream_without_the_option_has_no_usage(program: Program) -> None:
    assert all("usage" not in chunk for chunk in chunks(program.ask(stream=True)))


def test_system_message_replaces_the_one_of_the_project(program: Program) -> None:
    own = [{"role": "system", "content": "Talk like a pirate, at length."}, *HELLO]
    parts = [{"role": "user", "content": [{"type": "text", "text": "Hello?"}]}]

    with_own = program.ask(messages=own, temperature=0).json()
    without = program.ask(messages=parts, temperature=0).json()

    first, second = Completion.objects.order_by("pk")
    assert first.prompt == second.prompt == Prompt.objects.get()
    assert first.prompt.messages == HELLO
    assert first.system_prompt == "Talk like a pirate, at length."
    assert second.system_prompt == "Be brief."
    assert with_own["usage"]["prompt_tokens"] > without["usage"]["prompt_tokens"]


def test_answer_of_live_follows_the_release(
    program: Program, make_adapter: MakeAdapter, admin: User
) -> None:
    adapter = make_adapter(2)
    before = program.ask(temperature=0).json()

    release_promote(project=adapter.project, adapter=adapter, by=admin)
    live = program.ask(temperature=0).json()
    named = program.ask(model=adapter.name, temperature=0).json()
    base = program.ask(model="base", temperature=0).json()

    said = [answer["choices"][0]["message"]["content"] for answer in (before, live, named, base)]
    assert [answer["model"] for answer in (before, live, named, base)] == [
        "base",
        adapter.name,
        adapter.name,
        "base",
    ]
    assert said[0] == said[3]
    assert said[1] == said[2] != said[0]
    assert Completion.objects.filter(version=adapter.name).count() == 2


def test_models_are_live_base_and_the_projects_versions(
    program: Program, make_adapter: MakeAdapter, outsider: User
) -> None:
    adapter = make_adapter(2)

    listed = program.get("/v1/models").json()
    theirs = token_create(
        project=Project.objects.get(slug="other"), name="x", scopes=[Scope.CHAT], by=outsider
    )

    assert listed["object"] == "list"
    assert [entry["id"] for entry in listed["data"]] == ["live", "base", adapter.name]
    assert {entry["object"] for entry in listed["data"]} == {"model"}
    others = Program(*theirs).get("/v1/models").json()["data"]
    assert [entry["id"] for entry in others] == ["live", "base"]


# -- aborted


def test_client_disconnect_cancels_the_request_and_stores_the_partial_answer(
    program: Program, engine: RunningEngine
) -> None:
    before = metric(engine, CANCELLED)
    response = program.ask(stream=True, max_tokens=400)
    events = iter(response.streaming_content)
    for _ in range(4):
        next(events)

    hang_up(response)

    wait_until(lambda: metric(engine, CANCELLED) == before + 1, what="a cancelled request")
    completion = Completion.objects.get()
    assert completion.finish_reason == "aborted"
    assert completion.text
    assert completion.token_ids is None


def test_client_disconnect_before_the_first_event_cancels_the_request(
    program: Program, engine: RunningEngine
) -> None:
    before = metric(engine, CANCELLED)

    hang_up(program.ask(stream=True, max_tokens=400))

    wait_until(lambda: metric(engine, CANCELLED) == before + 1, what="a cancelled request")
    assert Completion.objects.get().finish_reason == "aborted"


def test_closing_unread_events_closes_their_source() -> None:
    ended = []

    def source() -> Generator[str]:
        try:
            yield "first"
        finally:
            ended.append(True)

    running = source()
    StartedEvents(running).close()

    assert ended


def test_token_revoked_during_a_stream_ends_it(
    program: Program, admin: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "TOKEN_CHECK_SECONDS", 0.0)
    response = program.ask(stream=True, max_tokens=400)
    events = iter(response.streaming_content)
    next(events)

    token_revoke(token=program.token, by=admin)
    rest = b"".join(events).decode()

    assert '"finish_reason": "aborted"' in rest
    assert len(rest.split("\n\n")) < 10
    assert Completion.objects.get().finish_reason == "aborted"


def test_vote_during_a_stream_makes_an_example_when_the_text_is_stored(program: Program) -> None:
    response = program.ask(stream=True)
    events = iter(response.streaming_content)
    first = json.loads(next(events).decode().split("\n\n")[0].removeprefix("data: "))

    assert program.thumb(first["completion_id"]).status_code == 200
    assert not hasattr(Completion.objects.get(), "example"), "an empty answer makes no example"
    list(events)

    completion = Completion.objects.get()
    assert completion.text
    assert completion.example.desirable


# -- refusals


def test_engine_unreachable_is_503_and_stores_nothing(program: Program, settings: Settings) -> None:
    settings.ENGINES = {MODEL: "http://127.0.0.1:9"}

    for stream in (False, True):
        response = program.ask(stream=stream)
        assert fault(response) == (503, "engine_unavailable", None)
        assert int(response["Retry-After"]) > 0
    settings.ENGINES = {}
    assert fault(program.ask()) == (503, "engine_unavailable", None)
    assert not Completion.objects.exists()


def test_version_that_the_engine_cannot_load_is_503(
    program: Program, make_adapter: MakeAdapter
) -> None:
    adapter = make_adapter(77)
    shutil.rmtree(adapter.directory)

    for stream in (False, True):
        refused = program.ask(model=adapter.name, stream=stream)
        assert fault(refused) == (503, "engine_unavailable", None)
    assert not Completion.objects.exists()


def test_conversation_too_long_for_the_model_is_400(program: Program) -> None:
    long = [{"role": "user", "content": "word " * 2_000}]

    for stream in (False, True):
        response = program.ask(messages=long, stream=stream)
        assert fault(response) == (400, "invalid_request", "messages")
        assert "context" in response.json()["error"]["message"]
    assert not Completion.objects.exists()


@pytest.mark.parametrize("model", ["nothing", "bot@99", "other@1", MODEL, "../bot@2", "LIVE"])
def test_unknown_model_is_404(model: str, program: Program) -> None:
    assert fault(program.ask(model=model)) == (404, "model_not_found", "model")


def test_version_of_another_project_or_discarded_is_404(
    program: Program, make_adapter: MakeAdapter, outsider: User
) -> None:
    adapter = make_adapter(2)
    theirs = Program(
        *token_create(
            project=Project.objects.get(slug="other"), name="x", scopes=[Scope.CHAT], by=outsider
        )
    )
    assert fault(theirs.ask(model=adapter.name)) == (404, "model_not_found", "model")

    adapter.discarded_at = adapter.created_at
    adapter.save()

    assert fault(program.ask(model=adapter.name)) == (404, "model_not_found", "model")
    assert adapter.name not in program.get("/v1/models").content.decode()


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"tools": []}, "invalid_value", "tools"),
        ({"store": True}, "unknown_parameter", "store"),
        ({"source": "demo"}, "unknown_parameter", "source"),
        ({"model": None}, "invalid_value", "model"),
        ({"model": "a\x00"}, "invalid_value", "model"),
        ({"model": "\udfff"}, "invalid_value", "model"),
        ({"messages": []}, "invalid_value", "messages"),
        ({"messages": [{"role": "user"}]}, "missing_required_parameter", "messages[0].content"),
        ({"messages": [{"role": "critic", "content": "x"}]}, "invalid_value", "messages[0].role"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "invalid_value", "messages[0]"),
        ({"messages": [*HELLO, {"role": "user", "content": ""}]}, "invalid_value", None),
        ({"messages": [{"role": "user", "content": "a\x00b"}]}, "invalid_value", None),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, "invalid_value", None),
        ({"messages": [{"role": "user", "content": "  "}]}, "invalid_value", None),
        ({"messages": [{"role": "system", "content": "x"}]}, "invalid_value", None),
        ({"messages": [*HELLO, {"role": "system", "content": "x"}]}, "invalid_value", None),
        ({"messages": [*HELLO, {"role": "assistant", "content": "x"}]}, "invalid_value", None),
        ({"messages": [{**HELLO[0], "id": 1}]}, "unknown_parameter", "messages[0].id"),
        ({"temperature": float("nan")}, "invalid_value", "temperature"),
        ({"temperature": 3}, "invalid_value", "temperature"),
        ({"top_p": 0}, "invalid_value", "top_p"),
        ({"max_tokens": 0}, "invalid_value", "max_tokens"),
        ({"seed": 2**63}, "invalid_value", "seed"),
        ({"n": 2}, "invalid_value", "n"),
        ({"stream": "perhaps"}, "invalid_value", "stream"),
    ],
)
def test_invalid_request_is_400_and_names_the_field(
    fields: dict[str, Any], code: str, param: str | None, program: Program
) -> None:
    status, said, named = fault(program.ask(**fields))

    assert (status, said) == (400, code)
    assert param is None or named == param
    assert not Completion.objects.exists()
    assert not Prompt.objects.exists()


def test_all_errors_of_a_request_are_reported_together(program: Program) -> None:
    message = program.ask(top_p=7, tools=[], n=3).json()["error"]["message"]

    assert all(name in message for name in ("top_p: ", "tools: ", "n: "))


@pytest.mark.parametrize("body", ["", "{", "[]", "nothing", '{"model": "live"', "null"])
def test_body_that_is_not_a_json_object_is_400(body: str, program: Program) -> None:
    status, code, _ = fault(program.post(CHAT, body))

    assert status == 400
    assert code in ("invalid_json", "invalid_value", "missing_required_parameter")


def test_body_too_large_is_413(program: Program, settings: Settings) -> None:
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 1_000

    assert fault(program.post(CHAT, {"model": "x" * 2_000}))[0] == 413


def test_same_conversation_is_stored_as_one_prompt(program: Program) -> None:
    program.ask()
    program.ask()

    assert Prompt.objects.get().content_hash == content_hash(HELLO)  # type: ignore[arg-type]
    assert Completion.objects.count() == 2


def test_request_for_a_known_prompt_makes_few_queries(
    program: Program, django_assert_num_queries: Any
) -> None:
    program.ask()

    # token, its minute, running split, prompt; insert of answer, conversation and turn; lock,
    # update; savepoints around the last two
    with django_assert_num_queries(16):
        assert program.ask().status_code == 200


# -- authentication


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer ", "Bearer nothing", "Basic abc", "Token {}", "Bearer {}x", "{}"],
)
def test_missing_or_wrong_token_is_401(header: str, program: Program) -> None:
    headers = {"Authorization": header.format(program.secret)} if header else {}

    for response in (
        Client().get("/v1/models", headers=headers),
        Client().post(CHAT, {}, content_type="application/json", headers=headers),
        Client().post("/v1/feedback", {}, content_type="application/json", headers=headers),
    ):
        assert fault(response) == (401, "invalid_api_key", None)
        assert response["WWW-Authenticate"] == "Bearer"


def test_session_without_token_is_401(program: Program, admin: User, as_user: As) -> None:
    client = as_user(admin)

    body = {"model": "live", "messages": HELLO}
    assert client.get("/v1/models").status_code == 401
    assert client.post(CHAT, body, content_type="application/json").status_code == 401


def test_revoked_token_is_401(program: Program, admin: User) -> None:
    token_revoke(token=program.token, by=admin)

    assert fault(program.ask()) == (401, "invalid_api_key", None)


def test_missing_scope_is_403(served: Project, admin: User) -> None:
    reader = Program(*token_create(project=served, name="R", scopes=[Scope.CHAT], by=admin))
    voter = Program(*token_create(project=served, name="V", scopes=[Scope.FEEDBACK], by=admin))
    answer = reader.ask().json()

    assert fault(voter.ask()) == (403, "insufficient_scope", None)
    assert fault(reader.thumb(answer["id"])) == (403, "insufficient_scope", None)
    assert voter.thumb(answer["id"]).status_code == 200
    assert voter.get("/v1/models").status_code == 200


def test_too_many_requests_are_429_with_retry_after(program: Program, settings: Settings) -> None:
    settings.API_REQUESTS_PER_MINUTE = 2
    ApiToken.objects.update(last_used_at=None)

    answers = [program.get("/v1/models") for _ in range(5)]

    # the rate-limit minute may change
    refused = [answer for answer in answers if answer.status_code == 429]
    assert refused
    assert fault(refused[0]) == (429, "rate_limit_exceeded", None)
    assert 1 <= int(refused[0]["Retry-After"]) <= 60


def test_openapi_names_operations_fields_and_the_bearer_scheme(client: Client) -> None:
    schema = client.get("/v1/openapi.json").json()

    assert set(schema["paths"]) == {"/v1/models", "/v1/chat/completions", "/v1/feedback"}
    schemes = schema["components"]["securitySchemes"]
    assert [(scheme["type"], scheme["scheme"]) for scheme in schemes.values()] == [
        ("http", "bearer")
    ]
    ask = schema["components"]["schemas"]["ChatAsk"]
    assert ask["additionalProperties"] is False
    assert {"model", "messages", "stream"} <= set(ask["properties"])
    for path in schema["paths"].values():
        for operation in path.values():
            assert operation["security"]


def test_stream_escapes_unicode_line_separators() -> None:
    text = "one\x85two\u2028three"
    (line,) = sse({"text": text}).splitlines()[:-1]
    assert json.loads(line.removeprefix("data: ")) == {"text": text}


def test_answer_ends_before_a_stop_text(program: Program) -> None:
    whole = program.ask(temperature=0, max_tokens=12).json()["choices"][0]["message"]["content"]
    stop = whole[len(whole) // 2 :][:3]
    cut = program.ask(temperature=0, max_tokens=12, stop=[stop, "never written"])
    assert cut.status_code == 200
    assert cut.json()["choices"][0]["message"]["content"] == whole[: whole.index(stop)]
    stored = Completion.objects.latest("pk")
    assert stored.text == whole[: whole.index(stop)]
    assert stored.token_ids is None  # they would go on to the stop text


def test_penalties_change_what_is_written(program: Program) -> None:
    def text(**penalties: float) -> str:
        said = program.ask(temperature=0, max_tokens=24, **penalties)
        assert said.status_code == 200, said.content
        return str(said.json()["choices"][0]["message"]["content"])

    assert text() != text(frequency_penalty=2) or text() != text(presence_penalty=2)


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("stop", [], None),
        ("stop", ["a", "b", "c", "d", "e"], "stop"),
        ("stop", "", "stop"),
        ("presence_penalty", 2.5, "presence_penalty"),
        ("response_format", {"type": "text"}, None),
        ("response_format", {"type": "json_object"}, "ENGINE_JSON"),
        ("tools", [], "tools"),
    ],
)
def test_fields_that_no_engine_keeps_are_refused_with_the_reason(
    program: Program, field: str, value: object, named: str | None
) -> None:
    said = program.ask(max_tokens=2, **{field: value})
    if named is None:
        assert said.status_code == 200, said.content
    else:
        assert said.status_code == 400
        assert named in said.content.decode()
