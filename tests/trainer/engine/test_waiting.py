"""A stream without tokens sends heartbeat comments while the engine works, and then stops."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.engines import wait_until
from tests.trainer.engine.conftest import Served, in_no_hurry, serving
from tests.trainer.engine.test_server import CHAT, ask, body, events
from trainer.engine.http import chat
from trainer.models.loading import load_base

pytestmark = pytest.mark.slow


@contextmanager
def held(served: Served) -> Iterator[threading.Event]:
    """Block the model's steps until the event is set, like a step that takes very long."""
    goes_on = threading.Event()
    batch = served.scheduler._batch
    step = batch.step

    def after_the_event() -> Any:
        goes_on.wait(120)
        return step()

    batch.step = after_the_event  # type: ignore[method-assign]
    try:
        yield goes_on
    finally:
        goes_on.set()
        batch.step = step  # type: ignore[method-assign]


def test_queued_request_gets_waiting_comments(
    tiny_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat, "WAITING_SECONDS", 0.05)
    base = load_base(str(tiny_dir), dtype="float32", device="cpu")
    with (
        serving(base, tmp_path, max_batch=1) as small,
        httpx.Client(base_url=small.url, timeout=60) as client,
    ):
        alone = ask(client)
        with (
            in_no_hurry(small),
            client.stream("POST", CHAT, json=body(stream=True, max_tokens=480)) as running,
        ):
            first = events(running)  # closed with its iterator
            assert next(first)
            wait_until(lambda: small.scheduler.running == 1, what="the first to run")
            with client.stream("POST", CHAT, json=body(stream=True)) as second:
                coming = second.iter_lines()
                first_event = next(coming)
                assert first_event.startswith("data: {"), "the stream must open at once"
                early = [next(line for line in coming if line) for _ in range(3)]
                assert early == [": waiting"] * 3
                running.close()
                tokens = [line for line in coming if '"token_ids"' in line]
        assert len(tokens) == len(alone["choices"][0]["token_ids"])


def test_long_step_sends_waiting_comments(
    engine: Served, client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat, "WAITING_SECONDS", 0.05)
    with (
        held(engine) as goes_on,
        client.stream("POST", CHAT, json=body(stream=True)) as response,
    ):
        coming = response.iter_lines()
        assert [next(line for line in coming if line == ": waiting") for _ in range(3)]
        goes_on.set()
        assert "data: [DONE]" in list(coming)


def test_stuck_engine_stops_sending_comments(
    engine: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat, "WAITING_SECONDS", 0.05)
    monkeypatch.setattr(chat, "STALLED_SECONDS", 0.5)
    lines: list[str] = []
    with (
        held(engine),
        httpx.Client(base_url=engine.url, timeout=5) as client,
        client.stream("POST", CHAT, json=body(stream=True)) as response,
        pytest.raises(httpx.ReadTimeout),
    ):
        for line in response.iter_lines():
            lines.append(line)
    assert ": waiting" in lines
