"""Fault 21: the database is locked, or gone: the answer says so, and repeating it works."""

import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from threading import Timer
from typing import Any

import pytest
from django.db import connection, connections
from django.test import Client
from django.urls import reverse

from feedback_app.accounts.models import Scope, User
from feedback_app.feedback.models import Completion, Project, Vote, VoteEvent
from feedback_app.feedback.tokens.services import token_create
from tests.conftest import MakeCompletions

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]
As = Callable[[User], Client]
Send = Callable[[], Any]
DESK = {"HX-Request": "true", "HX-Target": "stage"}
sqlite_only = pytest.mark.skipif(
    connection.vendor != "sqlite", reason="PostgreSQL locks rows, not the database"
)


@pytest.fixture
def send(annotator: User, as_user: As, make_completions: MakeCompletions) -> Send:
    """Return a function that votes from a thread with a connection of its own."""
    [completion] = make_completions(1)
    client = as_user(annotator)
    client.raise_request_exception = False  # as behind a web server
    client.get(reverse("annotate", args=["bot"]))
    return lambda: in_thread(lambda: vote(client, completion))


def vote(client: Client, completion: Completion) -> Any:
    url = reverse("vote", args=["bot", completion.pk])
    return client.post(url, {"verdict": "up"}, headers=DESK)


def in_thread(work: Callable[[], Any]) -> Any:
    def run() -> Any:
        try:
            return work()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(run).result()


@contextmanager
def locked() -> Iterator[sqlite3.Connection]:
    """Hold the write lock of the database, as a backup or another process does."""
    with closing(
        sqlite3.connect(connection.settings_dict["NAME"], check_same_thread=False)
    ) as other:
        other.isolation_level = None
        other.execute("BEGIN IMMEDIATE")
        yield other


@sqlite_only
def test_vote_waits_for_a_lock(send: Send) -> None:
    with locked() as other:
        timer = Timer(1.5, lambda: other.execute("ROLLBACK"))
        timer.start()
        assert send().status_code == 200
        timer.join()
    assert (Vote.objects.count(), VoteEvent.objects.count()) == (1, 1)


@sqlite_only
def test_vote_under_a_lock_that_stays_is_refused_and_stored_once_when_repeated(
    send: Send, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(connections.settings["default"]["OPTIONS"], "timeout", 0.3)
    with locked():
        refused = send()
    assert (refused.status_code, refused["Retry-After"]) == (503, "5")
    assert "not available right now" in refused.content.decode()
    assert not Vote.objects.exists()
    monkeypatch.undo()
    # the outbox of the page repeats what was answered with 5xx
    assert [send().status_code for _ in range(2)] == [200, 200]
    assert (Vote.objects.count(), VoteEvent.objects.count()) == (1, 1)


@pytest.fixture
def gone(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Let new connections lead nowhere."""
    connection.ensure_connection()
    elsewhere = {"NAME": "/proc/nowhere/db"} if connection.vendor == "sqlite" else {"PORT": "1"}
    for name, value in elsewhere.items():
        monkeypatch.setitem(connections.settings["default"], name, value)
    return monkeypatch


def test_page_and_api_say_that_the_database_is_gone_and_recover(
    send: Send, project: Project, admin: User, gone: pytest.MonkeyPatch
) -> None:
    refused = send()
    assert (refused.status_code, refused["Retry-After"]) == (503, "5")
    url = f"/api/v1/projects/{project.slug}/prompts"
    client = Client(raise_request_exception=False, headers={"Authorization": "Bearer pr_x"})
    answer = in_thread(lambda: client.get(url))
    assert (answer.status_code, answer["Retry-After"]) == (503, "5")
    assert answer.json()["error"]["code"] == "database_unavailable"
    assert in_thread(lambda: Client().get("/health")).status_code == 200
    gone.undo()
    assert send().status_code == 200
    _, secret = token_create(project=project, name="T", scopes=[Scope.DATA_READ], by=admin)
    client = Client(headers={"Authorization": f"Bearer {secret}"})
    assert in_thread(lambda: client.get(url)).status_code == 200
