"""The engine protocol that the web app uses: the common part of the embedded engine and vLLM.

These tests cover only what both guarantee. What the embedded engine does beyond it is in
tests/trainer/engine/test_server.py.
"""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.engine_contract.conftest import Target
from tests.engines import PATIENCE

pytestmark = pytest.mark.slow

CHAT = "/v1/chat/completions"
HELLO = [{"role": "user", "content": "Say hello in one short sentence."}]


def body(model: str, **changes: Any) -> dict[str, Any]:
    """Return a greedy request for eight tokens, with their ids."""
    wanted = {"model": model, "messages": HELLO, "max_tokens": 8, "temperature": 0}
    return {**wanted, "return_token_ids": True, **changes}


def ask(client: httpx.Client, model: str, **changes: Any) -> dict[str, Any]:
    response = client.post(CHAT, json=body(model, **changes))
    assert response.status_code == 200, response.text
    return dict(response.json())


def events(client: httpx.Client, model: str, **changes: Any) -> list[dict[str, Any]]:
    """Return a whole stream, which must end with [DONE]."""
    with client.stream("POST", CHAT, json=body(model, stream=True, **changes)) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        data = [
            line.removeprefix("data:").strip()
            for line in response.iter_lines()
            if line.startswith("data:")
        ]
    assert data[-1] == "[DONE]"
    return [json.loads(line) for line in data[:-1]]


def refused(response: httpx.Response, status: int) -> str:
    """Return the message of a refusal."""
    assert response.status_code == status, response.text
    message = response.json()["error"]["message"]
    assert message
    return str(message)


def listed(client: httpx.Client) -> dict[str, str | None]:
    """Return the parent of each listed model."""
    found = client.get("/v1/models").json()
    assert found["object"] == "list"
    return {entry["id"]: entry.get("parent") for entry in found["data"]}


# -- health and models


def test_health_is_200(client: httpx.Client) -> None:
    assert client.get("/health").status_code == 200


def test_base_model_is_listed_without_a_parent(client: httpx.Client, target: Target) -> None:
    assert listed(client)[target.model] is None


def test_metrics_are_prometheus_text(client: httpx.Client) -> None:
    response = client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    kinds = [line.split()[3] for line in response.text.splitlines() if line.startswith("# TYPE")]
    assert {"counter", "gauge", "histogram"} <= set(kinds)


# -- answers


def test_answer_has_text_finish_reason_ids_and_usage(client: httpx.Client, target: Target) -> None:
    answer = ask(client, target.model)
    choice = answer["choices"][0]
    assert (answer["object"], answer["model"]) == ("chat.completion", target.model)
    assert (choice["index"], choice["message"]["role"]) == (0, "assistant")
    assert isinstance(choice["message"]["content"], str)
    assert choice["finish_reason"] in ("stop", "length")
    assert len(choice["token_ids"]) == answer["usage"]["completion_tokens"] <= 8
    assert len(answer["prompt_token_ids"]) == answer["usage"]["prompt_tokens"] > 0


def test_stream_adds_up_to_the_whole_answer(client: httpx.Client, target: Target) -> None:
    whole = ask(client, target.model)
    found = events(client, target.model, stream_options={"include_usage": True})
    *pieces, last = found
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == whole["usage"]["completion_tokens"]
    prompts = [event["prompt_token_ids"] for event in pieces if event.get("prompt_token_ids")]
    assert prompts == [whole["prompt_token_ids"]]
    choices = [choice for event in pieces for choice in event["choices"]]
    ids = [token for choice in choices for token in choice.get("token_ids") or []]
    assert ids == whole["choices"][0]["token_ids"]
    text = "".join(choice["delta"].get("content") or "" for choice in choices)
    assert text == whole["choices"][0]["message"]["content"]
    reasons = [choice["finish_reason"] for choice in choices if choice.get("finish_reason")]
    assert reasons == [whole["choices"][0]["finish_reason"]]


def test_seed_makes_an_answer_reproducible(client: httpx.Client, target: Target) -> None:
    hot = {"temperature": 1.0, "top_p": 0.95, "max_tokens": 16}
    first, again, other = (
        ask(client, target.model, seed=seed, **hot)["choices"][0]["token_ids"] for seed in (3, 3, 4)
    )
    assert first == again != other


def test_stop_string_is_removed(client: httpx.Client, target: Target) -> None:
    text = ask(client, target.model, max_tokens=24)["choices"][0]["message"]["content"]
    stop = text[4:6]
    choice = ask(client, target.model, max_tokens=24, stop=[stop])["choices"][0]
    assert choice["message"]["content"] == text[: text.index(stop)]
    assert choice["finish_reason"] == "stop"


def test_logprobs_include_alternatives(client: httpx.Client, target: Target) -> None:
    answer = ask(client, target.model, max_tokens=3, logprobs=True, top_logprobs=2)
    content = answer["choices"][0]["logprobs"]["content"]
    assert len(content) == answer["usage"]["completion_tokens"]
    for entry in content:
        assert entry["logprob"] <= 0
        # greedy: the token is the most likely of the alternatives
        assert entry["top_logprobs"][0]["logprob"] == pytest.approx(entry["logprob"], abs=1e-3)


def test_all_sampling_parameters_are_accepted(client: httpx.Client, target: Target) -> None:
    knobs = {"temperature": 0.7, "top_p": 0.9, "top_k": 20, "repetition_penalty": 1.1, "seed": 1}
    assert ask(client, target.model, **knobs, ignore_eos=True)["usage"]["completion_tokens"] == 8


def test_concurrent_requests_are_all_answered(client: httpx.Client, target: Target) -> None:
    with ThreadPoolExecutor(12) as pool:
        answers = list(
            pool.map(
                lambda number: ask(client, target.model, max_tokens=4 + number, ignore_eos=True),
                range(12),
            )
        )
    assert [answer["usage"]["completion_tokens"] for answer in answers] == list(range(4, 16))


def test_disconnect_does_not_affect_other_requests(client: httpx.Client, target: Target) -> None:
    before = ask(client, target.model)["choices"][0]["token_ids"]
    request = body(target.model, stream=True, max_tokens=200, ignore_eos=True)
    with client.stream("POST", CHAT, json=request) as response:
        assert next(response.iter_lines())
    assert ask(client, target.model)["choices"][0]["token_ids"] == before


# -- refusals


def test_an_unknown_model_is_404(client: httpx.Client) -> None:
    assert "nobody@7" in refused(client.post(CHAT, json=body("nobody@7")), 404)


@pytest.mark.parametrize(
    "wrong", [{"temperature": -1}, {"top_p": 3}, {"max_tokens": 0}], ids=lambda wrong: str(wrong)
)
def test_invalid_parameter_is_400(
    client: httpx.Client, target: Target, wrong: dict[str, Any]
) -> None:
    assert next(iter(wrong)) in refused(client.post(CHAT, json=body(target.model, **wrong)), 400)


def test_conversation_too_long_is_400(client: httpx.Client, target: Target) -> None:
    long = [{"role": "user", "content": "far too long " * 100_000}]
    message = refused(client.post(CHAT, json=body(target.model, messages=long)), 400)
    assert "context" in message


# -- adapters


def test_adapters_are_listed_and_change_answers_until_unloaded(
    client: httpx.Client, target: Target, adapters: list[str]
) -> None:
    assert dict.fromkeys(adapters, target.model).items() <= listed(client).items()
    answers = {
        name: tuple(ask(client, name)["choices"][0]["token_ids"])
        for name in (target.model, *adapters)
    }
    assert len(set(answers.values())) == 3
    gone, kept = adapters
    done = client.post("/v1/unload_lora_adapter", json={"lora_name": gone})
    assert done.status_code == 200
    assert gone not in listed(client)
    assert tuple(ask(client, kept)["choices"][0]["token_ids"]) == answers[kept]


def test_answer_in_progress_completes_after_its_adapter_is_unloaded(
    client: httpx.Client, target: Target, adapters: list[str]
) -> None:
    request = body(adapters[0], stream=True, max_tokens=100, ignore_eos=True)
    with client.stream("POST", CHAT, json=request) as response:
        lines = response.iter_lines()
        assert next(lines)
        with httpx.Client(base_url=target.url, timeout=PATIENCE) as other:
            other.post(
                "/v1/unload_lora_adapter", json={"lora_name": adapters[0]}
            ).raise_for_status()
        rest = [line for line in lines if line.startswith("data:")]
    assert rest[-1].endswith("[DONE]")
    assert '"finish_reason": "length"' in rest[-2] or '"finish_reason":"length"' in rest[-2]


def test_missing_adapter_is_refused(client: httpx.Client, nowhere: str) -> None:
    load = {"lora_name": "missing@1", "lora_path": nowhere}
    response = client.post("/v1/load_lora_adapter", json=load)
    assert 400 <= response.status_code < 500
    assert refused(response, response.status_code)
    assert "missing@1" not in listed(client)


def test_unloading_an_unloaded_adapter_is_404(client: httpx.Client) -> None:
    response = client.post("/v1/unload_lora_adapter", json={"lora_name": "missing@1"})
    assert refused(response, 404)
