"""Heartbeats of processes: listed while they run, and for a while after they are gone."""

import os
import platform
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from django.core.cache import cache

from feedback_app.monitoring import processes
from feedback_app.monitoring.processes import ProcessBeat, devices_here


@pytest.fixture
def pass_time(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """`pass_time(60)`: all clocks of the module are so many seconds later."""
    ahead = 0.0
    wall, steady = time.time, time.monotonic

    def later(seconds: float) -> None:
        nonlocal ahead
        ahead += seconds

    monkeypatch.setattr(processes.time, "time", lambda: wall() + ahead)
    monkeypatch.setattr(processes.time, "monotonic", lambda: steady() + ahead)
    return later


def test_processes_are_listed_by_kind_with_their_queues() -> None:
    worker = ProcessBeat("worker", queues=("gpu",), devices=("H200, 141 GB",))
    web = ProcessBeat("web")
    for beat in (worker, web, web):
        beat.beat()
    found = processes.processes()
    assert [(each.kind, each.queues, each.devices, each.alive) for each in found] == [
        ("web", (), (), True),
        ("worker", ("gpu",), ("H200, 141 GB",), True),
    ]


def test_process_without_a_heartbeat_is_gone(pass_time: Callable[[float], None]) -> None:
    killed, running = ProcessBeat("worker"), ProcessBeat("web")
    killed.beat()
    pass_time(70)
    running.beat()
    assert [(each.kind, each.alive) for each in processes.processes()] == [
        ("web", True),
        ("worker", False),
    ]


def test_process_whose_slot_was_given_away_takes_another() -> None:
    first, second = ProcessBeat("web"), ProcessBeat("beat")
    first.beat()
    cache.clear()  # the server was restarted empty
    second.beat()
    first._next = 0.0
    first.beat()
    assert [each.kind for each in processes.processes()] == ["beat", "web"]


def test_what_another_version_has_stored_is_passed_over() -> None:
    cache.set("monitoring:process:3", {"kind": "web"})
    beat = ProcessBeat("web")
    beat.beat()
    assert [each.kind for each in processes.processes()] == ["web"]
    assert replace(processes.processes()[0], at=0.0).alive is False


def test_devices_of_a_host() -> None:
    assert devices_here()
    assert all(isinstance(device, str) and device for device in devices_here())


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told to return it")
def test_heartbeat_returns_memory_that_a_thread_freed() -> None:
    kept: list[bytes] = []

    def work() -> None:
        blocks = [bytes(4000) for _ in range(10_000)]
        kept.append(blocks[-1])  # the arena's end stays in use: glibc returns nothing by itself

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    full = resident_mb()
    ProcessBeat("web").beat()
    assert full - resident_mb() > 20


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
