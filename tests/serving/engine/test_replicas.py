"""Two real engine replicas for one base model."""

import json
import signal
from collections import Counter
from pathlib import Path

import httpx
import pytest
from django.test import Client
from pytest_django import Settings

from feedback_app.accounts.models import User
from feedback_app.feedback.models import Project
from feedback_app.serving.engine import replicas
from feedback_app.serving.engine.client import Engine, EngineError, Sampling
from feedback_app.serving.models import Release
from feedback_app.serving.releases.services import release_promote
from tests.engines import PATIENCE, RunningEngine, free_port, run_engine, wait_until
from tests.served import MODEL, MakeAdapter

pytestmark = [pytest.mark.django_db, pytest.mark.slow]
GREEDY = Sampling(max_tokens=4, temperature=0.0, top_p=1.0)


def adapters(url: str) -> set[str]:
    return set(httpx.get(f"{url}/health").json()["adapters"])


def answered(url: str) -> int:
    """Return how many answers an engine has generated."""
    lines = httpx.get(f"{url}/metrics").text.splitlines()
    return int(next(line for line in lines if 'outcome="length"' in line).rpartition(" ")[2])


def ask(project: Project, count: int, version: str) -> set[str]:
    """Ask `count` different questions; return the different answers."""
    engine = Engine(project)
    return {
        engine.answer(
            [{"role": "user", "content": f"Question {number}?"}], version=version, sampling=GREEDY
        ).text
        for number in range(count)
    }


@pytest.mark.long
def test_engine_that_refuses_blocks_the_promotion(
    served: Project,
    engine: RunningEngine,
    make_adapter: MakeAdapter,
    admin: User,
    settings: Settings,
    tmp_path: Path,
) -> None:
    adapter = make_adapter(3)
    with run_engine(engine.model, tmp_path / "elsewhere", served_name=MODEL) as other_engine:
        settings.ENGINES = {MODEL: [engine.url, other_engine.url]}
        with pytest.raises(EngineError, match="outside the artifact root"):
            release_promote(project=served, adapter=adapter, by=admin)
    served.refresh_from_db()
    assert served.live_version == "base"
    assert not Release.objects.exists()


@pytest.mark.long
def test_engine_gets_requests_when_it_is_up_and_none_when_down_again(
    served: Project,
    engine: RunningEngine,
    make_adapter: MakeAdapter,
    admin: User,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(replicas, "DOWN_SECONDS", 0.0)
    port = free_port()
    settings.ENGINES = {MODEL: [engine.url, f"http://127.0.0.1:{port}"]}
    first, other = make_adapter(1), make_adapter(2)
    release_promote(project=served, adapter=first, by=admin)  # one of the two engines is down
    ask(served, 8, first.name)
    with run_engine(
        engine.model, engine.artifacts, served_name=MODEL, port=port, log_name="second.log"
    ) as back:
        before = answered(engine.url)
        # requests for the base model: the second engine loads the live adapter without them
        ask(served, 12, "base")
        log = (engine.artifacts / "second.log").read_text().splitlines()
        events = [json.loads(line)["event"] for line in log]
        assert events.index("adapter_loaded") < events.index("answered")
        assert adapters(back.url) == {first.name}
        spread = [answered(engine.url) - before, answered(back.url)]
        assert sum(spread) == 12
        assert min(spread) >= 1, "each engine gets some of the requests"

        release_promote(project=served, adapter=other, by=admin)
        assert other.name in adapters(engine.url) & adapters(back.url)
        assert first.name not in adapters(engine.url) | adapters(back.url)

        back.process.send_signal(signal.SIGTERM)
        back.process.wait(timeout=PATIENCE)
        # down again: requests must not fail
        assert len(ask(served, 12, other.name)) > 1


def test_conversation_keeps_its_engine_and_many_are_spread_evenly() -> None:
    urls = [f"http://engine-{number}" for number in range(3)]
    chosen = [next(replicas.usable(urls, f"key {key}", lambda url: True)) for key in range(300)]
    again = [next(replicas.usable(urls, f"key {key}", lambda url: True)) for key in range(300)]
    assert chosen == again
    assert min(Counter(chosen).values()) > 70
    replicas.went_down(urls[0])
    moved = [next(replicas.usable(urls, f"key {key}", lambda url: True)) for key in range(300)]
    assert urls[0] not in moved
    assert [m for m, c in zip(moved, chosen, strict=True) if c != urls[0]] == [
        c for c in chosen if c != urls[0]
    ], "only conversations of the engine that is down move"


def test_request_id_is_passed_from_the_browser_to_the_engine(
    served: Project, engine: RunningEngine, admin: User
) -> None:
    client = Client(headers={"X-Request-ID": "seen-everywhere-7"})
    client.force_login(admin)
    response = client.post(f"/demo/{served.slug}/new/", {"text": "Hello?"})
    assert response.headers["X-Request-ID"] == "seen-everywhere-7"

    def answered() -> list[str]:
        """Return the request ids of the answers in the engine's log, written after each answer."""
        lines = (engine.artifacts / "engine.log").read_text().splitlines()
        events = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]
        return [event["request_id"] for event in events if event["event"] == "answered"]

    wait_until(lambda: "seen-everywhere-7" in answered(), what="the id in the engine's log")
    hostile = Client(headers={"X-Request-ID": "a b"}).get("/health")
    assert len(hostile.headers["X-Request-ID"]) == 32
