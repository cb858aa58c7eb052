"""The engine's HTTP contract, over real HTTP on loopback (docs/architecture.md)."""

import json
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
import torch

from artifact_store.cache import marker_of
from artifact_store.objects import ObjectStore
from tests.engines import PATIENCE, wait_until
from tests.tiny import make_tiny_adapter
from tests.trainer.engine.conftest import NAME, Served, in_no_hurry, load, serving
from trainer.data.chat import prompt_ids
from trainer.engine import scheduler as scheduling
from trainer.engine.cache_limits import CacheLimits
from trainer.engine.http.chat import sse
from trainer.engine.http.server import create_app
from trainer.errors import TrainerError
from trainer.models.loading import LoadedBase, load_base

pytestmark = pytest.mark.slow

CHAT = "/v1/chat/completions"


def body(**changes: Any) -> dict[str, Any]:
    """Return a greedy request for twelve tokens."""
    wanted = {
        "model": NAME,
        "messages": [{"role": "user", "content": "Bread?"}],
        "max_tokens": 12,
        "temperature": 0,
        "return_token_ids": True,
    }
    return {**wanted, **changes}


def ask(client: httpx.Client, **changes: Any) -> dict[str, Any]:
    response = client.post(CHAT, json=body(**changes))
    assert response.status_code == 200, response.text
    return dict(response.json())


def said(answer: dict[str, Any]) -> list[int]:
    return list(answer["choices"][0]["token_ids"])


def events(response: httpx.Response) -> Iterator[dict[str, Any]]:
    for line in response.iter_lines():
        if line.startswith("data: {"):
            yield json.loads(line.removeprefix("data: "))


def streamed(client: httpx.Client, **changes: Any) -> list[dict[str, Any]]:
    with client.stream("POST", CHAT, json=body(stream=True, **changes)) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        return list(events(response))


def refusal(response: httpx.Response, status: int) -> str:
    assert response.status_code == status, response.text
    assert response.json()["error"]["code"] == status
    return str(response.json()["error"]["message"])


# -- answers


def test_answer_has_text_ids_usage_and_a_finish_reason(
    client: httpx.Client, tiny: LoadedBase
) -> None:
    answer = ask(client)
    ids = prompt_ids(tiny.tokenizer, [{"role": "user", "content": "Bread?"}])
    given = torch.tensor([ids])
    expected = tiny.model.generate(
        given, attention_mask=torch.ones_like(given), max_new_tokens=12, do_sample=False
    )[0, len(ids) :].tolist()
    assert answer["prompt_token_ids"] == ids
    assert said(answer) == expected
    assert answer["choices"][0]["message"] == {
        "role": "assistant",
        "content": tiny.tokenizer.decode(expected, skip_special_tokens=True),
    }
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"] == {
        "prompt_tokens": len(ids),
        "completion_tokens": 12,
        "total_tokens": len(ids) + 12,
    }
    assert (answer["object"], answer["model"]) == ("chat.completion", NAME)


def test_token_ids_are_returned_only_on_request(client: httpx.Client) -> None:
    answer = ask(client, return_token_ids=False)
    assert "prompt_token_ids" not in answer
    assert "token_ids" not in answer["choices"][0]


def test_stream_adds_up_to_the_whole_answer(client: httpx.Client) -> None:
    whole = ask(client, max_tokens=60)
    chunks = streamed(client, max_tokens=60, stream_options={"include_usage": True})
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert chunks[0]["prompt_token_ids"] == whole["prompt_token_ids"]
    assert chunks[-1]["usage"] == whole["usage"]
    assert chunks[-1]["choices"] == []
    choices = [chunk["choices"][0] for chunk in chunks[1:-1]]
    assert [token for choice in choices for token in choice["token_ids"]] == said(whole)
    text = "".join(choice["delta"].get("content", "") for choice in choices)
    assert text == whole["choices"][0]["message"]["content"]
    assert [choice["finish_reason"] for choice in choices[-2:]] == [None, "length"]
    assert len({chunk["id"] for chunk in chunks}) == 1


def test_stream_ends_with_done(client: httpx.Client) -> None:
    response = client.post(CHAT, json=body(stream=True))
    assert response.text.endswith("data: [DONE]\n\n")


def test_stop_strings_end_an_answer_as_string_and_list(client: httpx.Client) -> None:
    text = ask(client, max_tokens=40)["choices"][0]["message"]["content"]
    stop = text[8:10]
    for wanted in (stop, ["never said", stop]):
        choice = ask(client, max_tokens=40, stop=wanted)["choices"][0]
        assert choice["message"]["content"] == text[: text.index(stop)]
        assert choice["finish_reason"] == "stop"


def test_answers_are_reproducible_per_seed(client: httpx.Client) -> None:
    answers = [said(ask(client, temperature=1.0, seed=seed)) for seed in (1, 1, 2)]
    assert answers[0] == answers[1] != answers[2]


def test_content_in_parts_and_unknown_fields_are_accepted(client: httpx.Client) -> None:
    parts = [{"role": "user", "content": [{"type": "text", "text": "Bread?"}], "name": "x"}]
    answer = ask(client, messages=parts, user="someone", logit_bias={}, n=1)
    assert said(answer) == said(ask(client))


def test_concurrent_answers_equal_separate_answers(
    client: httpx.Client, adapters: list[str]
) -> None:
    wanted = [
        body(model=model, messages=[{"role": "user", "content": text}], max_tokens=tokens)
        for model in (NAME, *adapters)
        for text, tokens in (("Bread?", 10), ("Tell me of the river Seine, please.", 30))
    ]
    alone = [said(client.post(CHAT, json=each).json()) for each in wanted]
    together: dict[int, list[int]] = {}

    def one(number: int) -> None:
        together[number] = said(client.post(CHAT, json=wanted[number]).json())

    threads = [threading.Thread(target=one, args=(number,)) for number in range(len(wanted))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [together[number] for number in range(len(wanted))] == alone
    assert len({tuple(ids) for ids in alone}) == len(wanted), (
        "every version gives a different answer"
    )


# -- refusals


def test_unknown_model_is_404(client: httpx.Client) -> None:
    response = client.post(CHAT, json=body(model="nobody@7"))
    assert "'nobody@7' is not loaded" in refusal(response, 404)


def test_all_errors_of_a_request_are_reported_together(client: httpx.Client) -> None:
    message = refusal(
        client.post(
            CHAT,
            json=body(temperature=-1, top_p=3, max_tokens=0, messages=[], n=2, stop=[""]),
        ),
        400,
    )
    for field in ("temperature", "top_p", "max_tokens", "messages", "n:", "stop"):
        assert field in message


@pytest.mark.parametrize("broken", ["", "{", "[]", '{"model": "tiny", "temperature": NaN}'])
def test_malformed_body_is_refused(client: httpx.Client, broken: str) -> None:
    headers = {"content-type": "application/json"}
    assert refusal(client.post(CHAT, content=broken, headers=headers), 400)


def test_other_content_types_are_refused(client: httpx.Client) -> None:
    # a web page could send this to a local port without a preflight request
    response = client.post(CHAT, content=json.dumps(body()), headers={"content-type": "text/plain"})
    assert "application/json" in refusal(response, 415)


def test_huge_body_is_refused(client: httpx.Client) -> None:
    big = body(messages=[{"role": "user", "content": "x" * 9_000_000}])
    assert refusal(client.post(CHAT, json=big), 413)


def test_context_overflow_is_refused_with_both_lengths(client: httpx.Client) -> None:
    message = refusal(client.post(CHAT, json=body(max_tokens=500)), 400)
    assert "500" in message
    assert "512" in message
    long = body(messages=[{"role": "user", "content": "far too long " * 400}], max_tokens=None)
    assert "512" in refusal(client.post(CHAT, json=long), 400)


def test_unknown_paths_answer_in_the_same_format(client: httpx.Client) -> None:
    assert refusal(client.get("/v1/nothing"), 404)
    assert refusal(client.get(CHAT), 405)


# -- adapters


def test_models_lists_base_and_adapters(client: httpx.Client, adapters: list[str]) -> None:
    data = client.get("/v1/models").json()["data"]
    assert [(entry["id"], entry["parent"]) for entry in data] == [
        (NAME, None),
        *((name, NAME) for name in adapters),
    ]
    assert client.get("/health").json() == {
        "status": "ok",
        "model": NAME,
        "adapters": adapters,
    }


def test_loading_is_idempotent_and_names_are_immutable(
    client: httpx.Client, adapters: list[str], engine: Served
) -> None:
    absolute = str(engine.artifacts / "adapters" / adapters[0])
    assert load(client, adapters[0], absolute).status_code == 200
    message = refusal(load(client, adapters[0], "adapters/starter@2"), 400)
    assert "immutable" in message


def test_name_cannot_be_reused_for_another_directory(client: httpx.Client) -> None:
    message = refusal(load(client, "starter@9", "adapters/starter@3"), 400)
    assert "it is starter@3, not starter@9" in message


def test_invalid_adapter_is_refused_with_all_reasons(
    client: httpx.Client, engine: Served, tiny: LoadedBase
) -> None:
    directory = engine.artifacts / "adapters" / "bad@1"
    make_tiny_adapter(directory, tiny, name="bad@1")
    (directory / "README.md").write_text("changed")
    config = json.loads((directory / "adapter_config.json").read_text())
    (directory / "adapter_config.json").write_text(json.dumps({**config, "use_dora": True}))
    try:
        message = refusal(load(client, "bad@1"), 400)
    finally:
        shutil.rmtree(directory)
    assert "README.md is not the file that was written" in message
    assert "use_dora is not served" in message
    refusal(client.post(CHAT, json=body(model="bad@1")), 404)


def test_pickles_are_never_read(client: httpx.Client, engine: Served, tiny: LoadedBase) -> None:
    directory = engine.artifacts / "adapters" / "pickle@1"
    make_tiny_adapter(directory, tiny, name="pickle@1")
    (directory / "adapter_model.bin").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    try:
        assert "pickle" in refusal(load(client, "pickle@1"), 400)
    finally:
        shutil.rmtree(directory)


@pytest.mark.parametrize("how", ["relative", "absolute", "symlink", "root"])
def test_paths_outside_the_artifact_root_are_refused(
    client: httpx.Client, engine: Served, tiny: LoadedBase, tmp_path: Path, how: str
) -> None:
    outside = tmp_path / "out@1"
    make_tiny_adapter(outside, tiny, name="out@1")
    link = engine.artifacts / "adapters" / "link@1"
    link.symlink_to(outside)
    path = {
        "relative": f"../../../../../../..{outside}",
        "absolute": str(outside),
        "symlink": "adapters/link@1",
        "root": ".",
    }[how]
    try:
        assert "outside the artifact root" in refusal(load(client, "out@1", path), 400)
    finally:
        link.unlink()


def test_missing_adapter_directory_is_refused(client: httpx.Client) -> None:
    assert "missing" in refusal(load(client, "gone@1"), 400)


def test_unloading_an_adapter_that_is_not_loaded_is_404(client: httpx.Client) -> None:
    assert refusal(client.post("/v1/unload_lora_adapter", json={"lora_name": "gone@1"}), 404)


def test_stream_continues_while_adapters_are_loaded_and_unloaded(
    client: httpx.Client, adapters: list[str], engine: Served
) -> None:
    first, second = adapters
    expected = said(ask(client, model=first, max_tokens=200))
    request = body(model=first, stream=True, max_tokens=200)
    with in_no_hurry(engine), client.stream("POST", CHAT, json=request) as response:
        coming = events(response)
        tokens = [next(coming) for _ in range(3)][-1]["choices"][0]["token_ids"]
        with httpx.Client(base_url=engine.url, timeout=PATIENCE) as other:
            # while the stream runs, its own adapter and another are unloaded, and a third is loaded
            for name in (first, second):
                gone = other.post("/v1/unload_lora_adapter", json={"lora_name": name})
                assert gone.status_code == 200
            load(other, "starter@3").raise_for_status()
            # requested again, its adapter is loaded again beside the one the stream uses
            assert said(ask(other, model=first, max_tokens=20)) == expected[:20]
            other.post("/v1/unload_lora_adapter", json={"lora_name": first})
            assert said(ask(other, model="starter@3"))
            chunks = list(coming)
        other_done = [chunk["choices"][0] for chunk in chunks]
    assert tokens
    ids = [token for choice in other_done for token in choice["token_ids"]]
    assert ids == expected[-len(ids) :]
    assert other_done[-1]["finish_reason"] == "length"
    # after the end of the stream the adapter is freed
    stack = engine.scheduler._decoder
    wait_until(lambda: len(stack.slots) == 1, what="the retired adapters to be freed")
    client.post("/v1/unload_lora_adapter", json={"lora_name": "starter@3"})


# -- disconnects and full queues


@pytest.mark.parametrize("stream", [True, False])
def test_client_disconnect_frees_its_row(engine: Served, stream: bool) -> None:
    before = engine.scheduler.counters["cancelled"]
    endless = body(stream=stream, max_tokens=480)
    client = httpx.Client(base_url=engine.url, timeout=PATIENCE)
    with in_no_hurry(engine):
        if stream:
            with client.stream("POST", CHAT, json=endless) as response:
                coming = events(response)
                assert next(coming)
        else:
            with pytest.raises(httpx.ReadTimeout):
                client.post(CHAT, json=endless, timeout=0.2)
        client.close()
        wait_until(
            lambda: engine.scheduler.counters["cancelled"] == before + 1, what="the cancellation"
        )
    assert engine.scheduler.running == 0


def test_full_queue_returns_retry_after(tiny_dir: Path, tmp_path: Path) -> None:
    base = load_base(str(tiny_dir), dtype="float32", device="cpu")
    with (
        serving(base, tmp_path, max_batch=1, max_queue=1) as small,
        in_no_hurry(small),
        httpx.Client(base_url=small.url, timeout=PATIENCE) as client,
        client.stream("POST", CHAT, json=body(stream=True, max_tokens=480)) as running,
    ):
        coming = events(running)
        assert next(coming)
        wait_until(lambda: small.scheduler.running == 1, what="the first to run")
        waiting = threading.Thread(target=lambda: client.post(CHAT, json=body()))
        waiting.start()
        wait_until(lambda: small.scheduler.queued == 1, what="the second to wait")
        refused = client.post(CHAT, json=body())
        assert "try again" in refusal(refused, 429)
        assert int(refused.headers["retry-after"]) >= 1
        running.close()
        waiting.join(timeout=PATIENCE)
        assert not waiting.is_alive(), "the next request gets the free slot"


def test_answers_that_do_not_fit_together_wait_for_each_other(
    tiny_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduling, "cache_limits", lambda model: CacheLimits(600, 0))
    base = load_base(str(tiny_dir), dtype="float32", device="cpu")
    with (
        serving(base, tmp_path) as served,
        in_no_hurry(served),
        httpx.Client(base_url=served.url, timeout=PATIENCE) as client,
        client.stream("POST", CHAT, json=body(stream=True, max_tokens=480)) as running,
    ):
        coming = events(running)
        assert next(coming)
        wait_until(lambda: served.scheduler.running == 1, what="the first to run")
        small = threading.Thread(target=lambda: client.post(CHAT, json=body()))
        small.start()
        wait_until(lambda: served.scheduler.queued == 1, what="the second to wait")
        rest = list(coming)
        assert rest[-1]["choices"][0]["finish_reason"] == "length"
        small.join(timeout=PATIENCE)
        assert served.scheduler.counters["length"] == 2


def test_error_in_the_model_ends_answers_but_not_the_engine(tiny_dir: Path, tmp_path: Path) -> None:
    base = load_base(str(tiny_dir), dtype="float32", device="cpu")
    with (
        serving(base, tmp_path) as served,
        httpx.Client(base_url=served.url, timeout=PATIENCE) as client,
    ):
        good = said(ask(client))
        embeddings = base.model.model.embed_tokens.weight
        kept = embeddings.data
        embeddings.data = kept[:3]  # simulate exhausted memory: the forward raises
        assert "engine failed" in refusal(client.post(CHAT, json=body()), 503)
        embeddings.data = torch.full_like(kept, torch.nan)
        assert "not finite" in refusal(client.post(CHAT, json=body()), 503)
        assert "not finite" in streamed(client)[-1]["error"]["message"]
        embeddings.data = kept
        assert said(ask(client)) == good


def test_failed_thread_fails_all_requests_and_ends_the_engine(
    tiny_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crashes: list[Exception] = []
    base = load_base(str(tiny_dir), dtype="float32", device="cpu")
    with (
        serving(base, tmp_path, on_crash=crashes.append) as served,
        httpx.Client(base_url=served.url, timeout=PATIENCE) as client,
    ):
        monkeypatch.setattr(served.scheduler, "_deliver", None)  # an error of the scheduler itself
        assert "starts again" in refusal(client.post(CHAT, json=body()), 503)
        wait_until(lambda: not served.scheduler.alive, what="the thread to end")
        assert client.get("/health").status_code == 503
        assert "shutting down" in refusal(client.post(CHAT, json=body()), 503)
    assert [type(crash) for crash in crashes] == [TypeError]


# -- caching and unloading


def test_next_turn_reuses_the_cache_of_the_same_adapter(
    client: httpx.Client, adapters: list[str], engine: Served, tiny: LoadedBase
) -> None:
    """And its answer equals that of reading the whole conversation again."""
    question = {"role": "user", "content": "Tell me of the river Seine, and of bread, please."}
    first = ask(client, model=adapters[0], messages=[question], max_tokens=30)
    history = [
        question,
        {"role": "assistant", "content": first["choices"][0]["message"]["content"]},
        {"role": "user", "content": "And then?"},
    ]
    for model, reuses in ((adapters[1], False), (NAME, False), (adapters[0], True)):
        before = engine.scheduler.reused_tokens
        fresh = said(ask(client, model=model, messages=[*history[:2], question], max_tokens=20))
        between = engine.scheduler.reused_tokens
        assert (between > before) == reuses, "another version's cache is not reused"
        second = ask(client, model=model, messages=history, max_tokens=20)
        assert engine.scheduler.reused_tokens > between
        assert fresh != said(second)
        ids = prompt_ids(tiny.tokenizer, history)
        assert second["prompt_token_ids"] == ids
        if model == NAME:
            given = torch.tensor([ids])
            alone = tiny.model.generate(
                given, attention_mask=torch.ones_like(given), max_new_tokens=20, do_sample=False
            )
            assert said(second) == alone[0, len(ids) :].tolist()


def test_registered_adapter_is_loaded_on_request(client: httpx.Client, engine: Served) -> None:
    loads = engine.scheduler.counters["loads"]
    assert said(ask(client, model="starter@3")) != said(ask(client))
    assert engine.scheduler.counters["loads"] == loads + 1
    client.post("/v1/unload_lora_adapter", json={"lora_name": "starter@3"}).raise_for_status()
    for name in ("starter@77", "../adapters/starter@3", "adapters"):
        assert "not loaded" in refusal(client.post(CHAT, json=body(model=name)), 404)
    weights = engine.artifacts / "adapters" / "starter@3" / "adapter_model.safetensors"
    good = weights.read_bytes()
    weights.write_bytes(good[:-4] + b"\x00\x00\xc0\x7f")
    try:
        message = refusal(client.post(CHAT, json=body(model="starter@3")), 404)
    finally:
        weights.write_bytes(good)
    assert "adapter_model.safetensors is not the file that was written" in message
    failures = 'prospect_engine_failures_total{model="starter@3"} 1'
    assert failures in client.get("/metrics").text


def test_least_recently_requested_adapter_is_unloaded(tiny_dir: Path, artifacts: Path) -> None:
    base = load_base(str(tiny_dir), dtype="float32", device="cpu")
    with (
        serving(base, artifacts, max_adapters=2) as served,
        httpx.Client(base_url=served.url, timeout=PATIENCE) as client,
    ):
        for name in ("starter@1", "starter@2", "starter@1", "starter@3"):
            assert said(ask(client, model=name))
        assert client.get("/health").json()["adapters"] == ["starter@1", "starter@3"]
        stack = served.scheduler._decoder
        wait_until(lambda: len(stack.slots) == 2, what="the memory to be freed")
        with (
            in_no_hurry(served),
            client.stream("POST", CHAT, json=endless("starter@1")) as one,
            client.stream("POST", CHAT, json=endless("starter@3")) as other,
        ):
            # keep a reference: a collected iterator closes the connection
            reading = [events(one), events(other)]
            assert all(next(words) for words in reading)
            message = refusal(load(client, "starter@2"), 400)
            assert "2 adapters are loaded, which is the limit" in message
        assert served.scheduler.counters["evictions"] == 1


def test_loaded_adapter_stays_on_disk_and_older_copies_go(
    tiny_dir: Path, artifacts: Path, tmp_path: Path
) -> None:
    shutil.copytree(artifacts, tmp_path / "host")
    store = ObjectStore(tmp_path / "host", "memory://engine", most=1)
    copies = {name: store.path(f"adapters/starter@{name}") for name in (1, 2, 3)}

    def age(path: Path) -> None:
        marker_of(path).write_text("1")
        os.utime(marker_of(path), (0, 0))

    for path in copies.values():
        age(path)
    base = load_base(str(tiny_dir), dtype="float32", device="cpu")
    with (
        serving(base, store.local, store=store) as served,
        httpx.Client(base_url=served.url, timeout=PATIENCE) as client,
    ):
        load(client, "starter@1").raise_for_status()
        assert not copies[2].exists()
        shutil.copytree(artifacts / "adapters" / "starter@2", copies[2])
        for path in (copies[1], copies[2]):
            age(path)
        load(client, "starter@2").raise_for_status()
    assert [name for name, path in copies.items() if path.exists()] == [1, 2]


def endless(model: str) -> dict[str, Any]:
    return body(model=model, stream=True, max_tokens=480, ignore_eos=True)


def test_names_with_a_common_prefix_are_two_adapters(
    client: httpx.Client, engine: Served, tiny: LoadedBase
) -> None:
    """starter@1 and starter@10 share a prefix."""
    directory = engine.artifacts / "adapters" / "starter@10"
    make_tiny_adapter(directory, tiny, name="starter@10", seed=10)
    try:
        answers = {name: said(ask(client, model=name)) for name in ("starter@1", "starter@10")}
        assert answers["starter@1"] != answers["starter@10"]
        client.post("/v1/unload_lora_adapter", json={"lora_name": "starter@1"}).raise_for_status()
        assert client.get("/health").json()["adapters"] == ["starter@10"]
        assert said(ask(client, model="starter@10")) == answers["starter@10"]
    finally:
        client.post("/v1/unload_lora_adapter", json={"lora_name": "starter@10"})
        shutil.rmtree(directory)


def test_logprobs_equal_those_of_the_model(client: httpx.Client, tiny: LoadedBase) -> None:
    answer = ask(client, max_tokens=5, logprobs=True, top_logprobs=3)
    ids = [*answer["prompt_token_ids"], *said(answer)]
    with torch.inference_mode():
        shares = tiny.model(input_ids=torch.tensor([ids])).logits[0].log_softmax(dim=-1)
    content = answer["choices"][0]["logprobs"]["content"]
    assert len(content) == 5
    start = len(answer["prompt_token_ids"])
    for index, entry in enumerate(content):
        expected = shares[start + index - 1]
        assert entry["logprob"] == pytest.approx(float(expected[ids[start + index]]), abs=1e-4)
        top = [other["logprob"] for other in entry["top_logprobs"]]
        assert top == pytest.approx(expected.topk(3).values.tolist(), abs=1e-4)
        assert entry["token"] == tiny.tokenizer.decode([ids[start + index]])
    chunks = streamed(client, max_tokens=5, logprobs=True)
    pieces = [chunk["choices"][0]["logprobs"] for chunk in chunks]
    assert [piece["content"][0]["logprob"] for piece in pieces if piece] == pytest.approx(
        [entry["logprob"] for entry in content]
    )
    assert "needs logprobs" in refusal(client.post(CHAT, json=body(top_logprobs=2)), 400)


# -- the process


def test_request_id_is_in_the_log_and_the_response(client: httpx.Client) -> None:
    with structlog.testing.capture_logs(
        processors=[structlog.contextvars.merge_contextvars]
    ) as lines:
        given = client.post(CHAT, json=body(), headers={"X-Request-ID": "from-the-browser.1"})
        hostile = client.post(CHAT, json=body(stream=True), headers={"X-Request-ID": "a b\tc"})
        refused = client.post(CHAT, json={}, headers={"X-Request-ID": "refused-1"})
        wait_until(lambda: len(lines) == 2, what="both to be logged")
    assert given.headers["x-request-id"] == "from-the-browser.1"
    assert refused.headers["x-request-id"] == "refused-1"
    assert [line["request_id"] for line in lines] == [
        "from-the-browser.1",
        hostile.headers["x-request-id"],
    ]
    assert len(hostile.headers["x-request-id"]) == 32, "an invalid id is replaced"


def test_metrics_count_requests_and_tokens(client: httpx.Client, engine: Served) -> None:
    before = dict(engine.scheduler.counters)
    ask(client, max_tokens=7)
    text = client.get("/metrics").text
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if line[0] != "#")
    assert int(values["prospect_engine_completion_tokens_total"]) == (
        before.get("completion_tokens", 0) + 7
    )
    assert int(values['prospect_engine_requests_total{outcome="length"}']) == (
        before.get("length", 0) + 1
    )
    assert values["prospect_engine_queued"] == "0"
    # one first token and six gaps; the buckets of each histogram add up to its count
    for name in ("first_token_seconds", "token_gap_seconds"):
        whole = values[f"prospect_engine_{name}_count"]
        assert int(whole) >= {"first_token_seconds": 1, "token_gap_seconds": 6}[name]
        assert values[f'prospect_engine_{name}_bucket{{le="+Inf"}}'] == whole


async def get(app: Any, path: str) -> httpx.Response:
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        return await client.get(path)


def test_health_reports_loading_until_the_model_is_loaded() -> None:
    import asyncio

    def never() -> Any:
        raise AssertionError("without its lifespan the app loads nothing")

    app = create_app(NAME, never, on_failure=lambda error: None)
    health = asyncio.run(get(app, "/health"))
    assert (health.status_code, health.json()["status"]) == (503, "loading")
    assert "still loading" in refusal(asyncio.run(get(app, "/v1/models")), 503)


def test_model_that_cannot_be_loaded_is_reported() -> None:
    import asyncio

    def broken() -> Any:
        raise TrainerError("no such model")

    failures: list[Exception] = []
    app = create_app(NAME, broken, on_failure=failures.append)

    async def live() -> None:
        async with app.router.lifespan_context(app):
            pass

    asyncio.run(live())
    assert [str(failure) for failure in failures] == ["no such model"]


def test_stream_escapes_unicode_line_separators() -> None:
    text = "one\x85two\u2028three \U0001f600"
    (line,) = sse({"text": text}).splitlines()[:-1]
    assert json.loads(line.removeprefix("data: ")) == {"text": text}


def test_free_memory_is_returned_once_when_idle(
    tiny_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    returned: list[int] = []
    monkeypatch.setattr(scheduling, "IDLE_SECONDS", 0.01)
    monkeypatch.setattr(scheduling, "release_free_memory", lambda: returned.append(1))
    base = load_base(str(tiny_dir), dtype="float32", device="cpu")
    with (
        serving(base, tmp_path) as served,
        httpx.Client(base_url=served.url, timeout=PATIENCE) as client,
    ):
        for times in (1, 2):
            ask(client)
            wait_until(lambda n=times: len(returned) >= n, what="the return of memory")
        assert len(returned) == 2, "an idle engine does it once"
