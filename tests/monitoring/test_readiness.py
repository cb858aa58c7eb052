"""/healthz and /readyz: each part by name, within bounded time, without secrets for outsiders."""

import threading
import time
from collections.abc import Callable, Iterator

import pytest
from django.core.cache import cache
from django.test import Client
from pytest_django import Settings

from feedback_app.monitoring import heartbeats, readiness

TOKEN = "a-token-of-an-operator"
PARTS = {"database", "broker", "engines", "worker-default", "worker-gpu", "dispatch"}


@pytest.fixture(autouse=True)
def no_earlier_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "_probes", {})


@pytest.fixture
def all_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every part is ready; the checks of the tests replace single ones."""
    for name in ("database_fault", "broker_fault", "dispatch_fault"):
        monkeypatch.setattr(readiness, name, lambda: None)
    for name in ("engine_fault", "worker_fault"):
        monkeypatch.setattr(readiness, name, lambda argument: None)


@pytest.fixture
def hang() -> Iterator[Callable[..., None]]:
    """A check that ends with the test."""
    ended = threading.Event()
    yield lambda *_: ended.wait(60) and None
    ended.set()


@pytest.mark.parametrize("path", ["/health", "/healthz"])
def test_process_answers_without_database_and_broker(path: str) -> None:
    # without the mark django_db a query is an error
    answer = Client().get(path)
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


@pytest.mark.usefixtures("all_ready")
def test_ready_when_all_parts_are() -> None:
    answer = Client().get("/readyz")
    assert answer.status_code == 200
    assert answer.json() == {"status": "ok", "parts": dict.fromkeys(PARTS, "ok")}
    assert "no-store" in answer.headers["Cache-Control"]


@pytest.mark.usefixtures("all_ready")
def test_not_ready_names_the_part_and_gives_reasons_to_operators_only(
    monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    settings.METRICS_TOKEN = TOKEN
    settings.REDIS_URL = "redis://:secret@broker.internal"

    def fails() -> None:
        raise ConnectionError("redis://:secret@broker.internal refused")

    monkeypatch.setattr(readiness, "broker_fault", fails)

    outside = Client().get("/readyz")
    wrong = Client(headers={"Authorization": f"Bearer {TOKEN}x"}).get("/readyz")
    inside = Client(headers={"Authorization": f"Bearer {TOKEN}"}).get("/readyz")

    for answer in (outside, wrong):
        assert answer.status_code == 503
        assert answer.json()["parts"] == {**dict.fromkeys(PARTS, "ok"), "broker": "not ok"}
        assert set(answer.json()) == {"status", "parts"}
    assert inside.status_code == 503
    assert inside.json()["reasons"] == {"broker": "The check failed with ConnectionError."}
    assert "secret" not in inside.content.decode()


@pytest.mark.parametrize(
    ("mode", "sender", "headers", "reasons"),
    [
        ("local", "127.0.0.1", {}, True),
        ("local", "::1", {}, True),
        ("local", "192.0.2.1", {}, False),
        ("local", "", {}, False),
        ("local", "127.0.0.1", {"X-Forwarded-For": "192.0.2.1"}, False),
        ("production", "127.0.0.1", {}, False),
    ],
)
@pytest.mark.usefixtures("all_ready")
def test_reasons_need_no_token_on_the_machine_itself(
    mode: str, sender: str, headers: dict[str, str], reasons: bool, settings: Settings
) -> None:
    settings.MODE = mode
    answer = Client(headers=headers, REMOTE_ADDR=sender).get("/readyz")
    assert ("reasons" in answer.json()) is reasons


@pytest.mark.slow
@pytest.mark.usefixtures("all_ready")
def test_answers_in_bounded_time_when_every_part_hangs(
    monkeypatch: pytest.MonkeyPatch, hang: Callable[..., None]
) -> None:
    names = ("database", "broker", "dispatch", "engine", "worker")
    for name in names:
        monkeypatch.setattr(readiness, f"{name}_fault", hang)
    before = threading.active_count()

    started = time.monotonic()
    answers = [Client().get("/readyz") for _ in range(3)]
    seconds = (time.monotonic() - started) / len(answers)

    assert all(answer.status_code == 503 for answer in answers)
    assert set(answers[0].json()["parts"].values()) == {"not ok"}
    # parts are waited for together: one after the other they would take six times the limit
    assert seconds < 3 * readiness.LIMIT_SECONDS
    assert threading.active_count() - before <= len(PARTS), "one thread a part, however many ask"


@pytest.mark.django_db
def test_real_checks_of_a_machine_where_only_the_database_runs(settings: Settings) -> None:
    settings.METRICS_TOKEN = TOKEN
    settings.CELERY_BROKER_URL = "redis://:secret@127.0.0.1:9/0"
    settings.ENGINES = {"tiny": ["http://127.0.0.1:9", "http://127.0.0.1:10"]}

    answer = Client(headers={"Authorization": f"Bearer {TOKEN}"}).get("/readyz")

    assert answer.status_code == 503
    body = answer.json()
    assert body["parts"] == {**dict.fromkeys(PARTS, "not ok"), "database": "ok"}
    assert body["reasons"]["engines"] == "No engine of tiny is ready."
    assert body["reasons"]["worker-gpu"].startswith("No worker of the queue gpu")
    assert "secret" not in answer.content.decode()


def test_worker_counts_as_gone_after_a_minute_without_a_heartbeat(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert readiness.worker_fault("gpu") is not None
    heartbeats.beat("gpu")
    assert readiness.worker_fault("gpu") is None
    assert readiness.worker_fault("default") is not None
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + heartbeats.GONE_SECONDS + 1)
    assert readiness.worker_fault("gpu") is not None
    cache.clear()


@pytest.mark.usefixtures("all_ready")
def test_load_balancers_may_ask_over_plain_http(settings: Settings) -> None:
    settings.SECURE_SSL_REDIRECT = True
    assert Client().get("/readyz").status_code == 200
    assert Client().get("/accounts/login/").status_code == 301
