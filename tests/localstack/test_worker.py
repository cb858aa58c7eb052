"""Connections of people who come at the same time are shared between the web's workers."""

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from gunicorn.config import Config

from feedback_app.config.worker import EvenWorker
from tests.engines import PATIENCE

COMING = 30


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


def worker(taken: list[Any]) -> EvenWorker:
    """A worker that only accepts, and keeps what it has validated."""
    found = EvenWorker(1, 0, [], None, 30, Config(), None)
    found.enqueue_req = taken.append
    found.tmp.close()
    return found


def test_a_busy_worker_leaves_connections_to_an_idle_one(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_busy: list[Any] = []
    by_idle: list[Any] = []
    for _ in range(COMING):
        busy, idle = worker(by_busy), worker(by_idle)
        busy.nr_conns = 1  # it is answering a request
        taken = threading.Event()
        # its pause is as long as an idle worker needs
        monkeypatch.setattr(
            "feedback_app.config.worker.time.sleep", lambda _, taken=taken: taken.wait(PATIENCE)
        )
        with socket.create_connection(listener.getsockname()):
            eager = threading.Thread(target=busy.accept, args=(listener,))
            eager.start()  # it would be first
            idle.accept(listener)
            taken.set()
            eager.join()
    for connection in by_busy + by_idle:
        connection.sock.close()
    assert (len(by_busy), len(by_idle)) == (0, COMING)


def test_connections_that_wait_make_no_worker_busy(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr("feedback_app.config.worker.time.sleep", slept.append)
    resting = worker([])
    resting.nr_conns = 3
    resting.keepalived_conns.extend([None, None])
    resting.pending_conns.append(None)
    resting.accept(listener)  # nobody came: nothing happens
    assert not slept
    resting.nr_conns = 4
    resting.accept(listener)
    assert len(slept) == 1
