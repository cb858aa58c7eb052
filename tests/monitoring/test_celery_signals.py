"""Request ids, counts and heartbeats of tasks and workers."""

from pathlib import Path
from typing import Any

import pytest
import structlog
from celery import shared_task
from django.test import Client
from kombu import Connection
from kombu.simple import SimpleQueue
from structlog.contextvars import bound_contextvars
from structlog.testing import capture_logs

from feedback_app.accounts.models import User
from feedback_app.config.cache import TolerantRedisCache
from feedback_app.feedback.models import Project
from feedback_app.feedback.prompts.completions import Answer
from feedback_app.localstack.stack import Stack
from feedback_app.monitoring import heartbeats, task_counts
from feedback_app.serving.engine.batch import ask_each
from feedback_app.serving.engine.concurrency import ConcurrencyLimit
from feedback_app.training import tasks
from feedback_app.training.models import Run
from feedback_app.training.runs.config import RunConfig, form_values
from feedback_app.web import log_context
from tests.engines import wait_until

ID = "request-of-a-person"


@shared_task(name="tests.note")
def note(answers: list[str] | None = None) -> str:
    if answers is None:
        raise ValueError("no list")
    return log_context.request_id()


@pytest.fixture(autouse=True)
def no_request() -> None:
    structlog.contextvars.clear_contextvars()


def sent(publish: Any) -> list[dict[str, Any]]:
    """Return the headers of the messages that `publish(connection)` sends."""
    with Connection("memory://") as connection:
        publish(connection)
        headers = []
        for name in heartbeats.queues():
            queue = SimpleQueue(connection.default_channel, name)
            while len(queue):
                message = queue.get(block=False)
                message.ack()
                headers.append(message.headers)
        return headers


def test_message_carries_the_id_of_the_request_that_sends_it() -> None:
    with bound_contextvars(request_id=ID):
        [headers] = sent(lambda connection: note.apply_async(([],), connection=connection))
    assert headers["request_id"] == ID


def test_task_logs_the_id_of_its_message_and_leaves_none_behind() -> None:
    assert note.apply(([],), headers={"request_id": ID}).get() == ID
    assert log_context.request_id() == ""


def test_task_without_a_request_gets_an_id_of_its_own() -> None:
    first, second = (note.apply(([],)).get() for _ in range(2))
    assert len(first) == len(second) == 32
    assert first != second


def test_threads_that_ask_the_engine_log_the_id_of_their_task(db: None) -> None:
    def ask(work: int, on_tokens: object) -> Answer:
        return Answer(log_context.request_id(), "base", "stop", None, None)

    with bound_contextvars(request_id=ID):
        limit = ConcurrencyLimit(most=2)
        answers = [a for _, a in ask_each([1, 2, 3], ask, limit=limit, healthy=lambda: True)]
    assert [answer.text for answer in answers if isinstance(answer, Answer)] == [ID] * 3


def test_tasks_are_counted_by_name_and_state() -> None:
    note.apply(([],))
    with capture_logs() as logs:
        note.apply(([],))
        note.apply()
    counted = task_counts.counts()["tests.note"]
    assert (counted.succeeded, counted.failed, counted.retried) == (2, 1, 0)
    assert counted.seconds >= 0
    ended = [line["state"] for line in logs if line["event"] == "task_ended"]
    assert ended == ["SUCCESS", "FAILURE"]


def test_ticks_of_the_dispatch_are_its_heartbeat(db: None) -> None:
    assert not heartbeats.is_alive(heartbeats.DISPATCH)
    tasks.dispatch.apply()
    assert heartbeats.is_alive(heartbeats.DISPATCH)
    assert task_counts.counts()["training.dispatch"].succeeded == 1


def test_run_is_dispatched_under_the_request_that_queued_it(
    voted_project: Project, admin: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = Client(headers={"X-Request-ID": ID})
    client.force_login(admin)
    with capture_logs(processors=[structlog.contextvars.merge_contextvars]) as logs:
        form = form_values(RunConfig())
        answer = client.post(f"/projects/{voted_project.slug}/runs/new/", form)
    assert answer.status_code == 302, answer.content[:300]
    run = Run.objects.get()
    assert run.request_id == ID
    [logged] = [line for line in logs if line["event"] == "run_requested"]
    assert (logged["run"], logged["request_id"]) == (run.pk, ID)

    structlog.contextvars.clear_contextvars()
    send = tasks.train_run.apply_async

    def dispatch(connection: Connection) -> None:
        monkeypatch.setattr(
            tasks.train_run,
            "apply_async",
            lambda *given, **options: send(*given, **options, connection=connection),
        )
        tasks.dispatch.apply()

    [headers] = sent(dispatch)
    assert headers["request_id"] == ID


@pytest.mark.slow
def test_running_worker_sends_heartbeats_of_its_queue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = {"PROSPECT_VAR": str(tmp_path), "PROSPECT_ENV": "local", "REDIS_URL": None}
    with Stack(env, ["valkey", "worker-gpu"]) as stack:
        shared = TolerantRedisCache(stack.redis_url, {"KEY_PREFIX": "prospect-cache"})
        monkeypatch.setattr(heartbeats, "cache", shared)
        wait_until(lambda: heartbeats.is_alive("gpu"), what="the first heartbeat")
        first = heartbeats.last_beats()
        wait_until(lambda: heartbeats.last_beats()["gpu"] > first["gpu"], what="the second")
        assert not heartbeats.is_alive("default")
        shared.close()
