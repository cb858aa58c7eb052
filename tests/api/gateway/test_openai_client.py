"""OpenAI's own Python client against the gateway, over HTTP, with a real engine."""

import json
from collections.abc import Iterator

import httpx
import openai
import pytest
from pytest_django.live_server_helper import LiveServer

from feedback_app.accounts.models import Scope, User
from feedback_app.feedback.models import Completion, Example, Project
from feedback_app.feedback.tokens.services import token_create
from tests.engines import PATIENCE, wait_until

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]
HELLO = [{"role": "user", "content": "Hello?"}]


@pytest.fixture
def secret(served: Project, admin: User) -> str:
    return token_create(project=served, name="Shop", scopes=list(Scope), by=admin)[1]


@pytest.fixture
def client(live_server: LiveServer, secret: str) -> Iterator[openai.OpenAI]:
    url = f"{live_server.url}/v1"
    with openai.OpenAI(base_url=url, api_key=secret, max_retries=0, timeout=PATIENCE) as opened:
        yield opened


def test_client_lists_models_completes_and_sends_a_thumb(
    client: openai.OpenAI, live_server: LiveServer, secret: str
) -> None:
    assert [model.id for model in client.models.list()] == ["live", "base"]

    answer = client.chat.completions.create(
        model="live", messages=HELLO, max_tokens=8, temperature=0
    )
    thumb = client.post(
        "/feedback", body={"completion_id": answer.id, "verdict": "up"}, cast_to=httpx.Response
    )

    completion = Completion.objects.get()
    assert answer.id == f"cmpl-{completion.pk}"
    assert answer.model == "base"
    assert answer.choices[0].message.content == completion.text
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 8
    assert thumb.json()["verdict"] == "up"
    assert Example.objects.get().desirable


def test_client_streams(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model="live",
        messages=HELLO,
        max_tokens=8,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)

    completion = Completion.objects.get()
    said = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert said == completion.text
    assert {chunk.id for chunk in chunks} == {f"cmpl-{completion.pk}"}
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == len(completion.token_ids)
    assert chunks[-2].choices[0].finish_reason == completion.finish_reason
    assert chunks[-2].model_dump()["completion_id"] == completion.pk


def test_client_disconnect_stores_an_aborted_answer(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model="live", messages=HELLO, max_tokens=450, stream=True
    )
    first = next(iter(stream))

    stream.close()

    answers = Completion.objects.filter(pk=int(first.id.removeprefix("cmpl-"))).exclude(text="")
    wait_until(answers.exists, what="the stored partial answer")
    assert answers.get().finish_reason == "aborted"
    assert answers.get().token_ids is None


def test_client_raises_its_own_errors(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        client.chat.completions.create(model="bot@99", messages=HELLO)
    assert (unknown.value.code, unknown.value.param) == ("model_not_found", "model")

    with pytest.raises(openai.BadRequestError) as faulty:
        client.chat.completions.create(model="live", messages=HELLO, store=True)
    assert faulty.value.param == "store"

    with pytest.raises(openai.AuthenticationError), client.with_options(api_key="nothing") as wrong:
        wrong.models.list()


def test_cross_origin_request_gets_no_cors_headers(live_server: LiveServer) -> None:
    origin = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}

    with httpx.Client(base_url=live_server.url) as browser:
        preflight = browser.options("/v1/chat/completions", headers=origin)
        refused = browser.post("/v1/chat/completions", content=json.dumps({}), headers=origin)

    assert preflight.status_code == 405
    assert refused.status_code == 401
    assert not [n for n in (*preflight.headers, *refused.headers) if n.startswith("access-control")]
