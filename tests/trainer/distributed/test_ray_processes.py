"""Processes of one run on a Ray cluster, without one: variables, exit codes, stopping.

tests/training/launchers/test_ray_cluster.py has a cluster.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engines import wait_until
from trainer.distributed.ray_processes import (
    End,
    Place,
    Process,
    environments,
    exit_code,
    main,
    report,
)
from trainer.errors import Cancelled, NotWritten, Refused, RunFailed

CANCELLED, REFUSED = Cancelled.exit_code, Refused.exit_code
FAILED, NOT_WRITTEN = RunFailed.exit_code, NotWritten.exit_code


def test_ranks_are_of_the_run_and_of_the_node() -> None:
    places = [
        Place("a", "10.0.0.1", 4001, ("2",)),
        Place("b", "10.0.0.2", 4002, ("0",)),
        Place("a", "10.0.0.1", 4003, ("5",)),
    ]
    found = environments(places)
    assert {(each["MASTER_ADDR"], each["MASTER_PORT"]) for each in found} == {("10.0.0.1", "4001")}
    assert {each["WORLD_SIZE"] for each in found} == {"3"}
    assert [each["RANK"] for each in found] == ["0", "1", "2"]
    assert [each["LOCAL_RANK"] for each in found] == ["0", "0", "1"]
    assert [each["LOCAL_WORLD_SIZE"] for each in found] == ["2", "1", "2"]
    # the processes of a node see all of its GPUs; each uses that of its number
    assert [each["CUDA_VISIBLE_DEVICES"] for each in found] == ["2,5", "0", "2,5"]


def test_processes_without_gpus_keep_what_ray_has_set() -> None:
    (found,) = environments([Place("a", "10.0.0.1", 4001)])
    assert "CUDA_VISIBLE_DEVICES" not in found


@pytest.mark.parametrize(
    ("codes", "stopped", "expected"),
    [
        ([0, 0], False, 0),
        # it had finished when it was asked to stop
        ([0, 0], True, 0),
        ([REFUSED, REFUSED], False, REFUSED),
        ([CANCELLED, FAILED], False, FAILED),
        ([1, NOT_WRITTEN], False, NOT_WRITTEN),
        ([CANCELLED, CANCELLED], False, CANCELLED),
        # killed, as it did not end in time
        ([CANCELLED, -signal.SIGKILL], True, CANCELLED),
        # the node of one was lost, and the other was asked to stop
        ([1, CANCELLED], False, 1),
        ([-signal.SIGSEGV, 1], False, 1),
        # the first has finished and the node of the other was lost: tried again
        ([0, 1], False, 1),
    ],
)
def test_exit_code_of_a_run(codes: list[int], stopped: bool, expected: int) -> None:
    assert exit_code(codes, stopped=stopped) == expected


def test_report_of_a_refusal_ends_with_its_reason() -> None:
    ends = {0: End(REFUSED, "no such base model"), 1: End(1), 2: End(1, "connection closed")}
    assert report(ends, REFUSED) == (
        "process 2 ended with 1\nconnection closed\nprocess 0 ended with 4\nno such base model"
    )
    # the run's own log has the reason
    assert report({0: End(REFUSED), 1: End(1)}, REFUSED) == ""


def test_report_of_a_crash_names_every_process() -> None:
    ends = {0: End(1), 1: End(-signal.SIGKILL), 2: End(0)}
    assert report(ends, 1) == "process 1 ended with -9\nprocess 0 ended with 1"


class Running:
    """A process of a run whose command runs in a thread, as an actor's does."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self.process = Process()
        self.ended: list[tuple[int, str]] = []
        self.thread = threading.Thread(
            target=lambda: self.ended.append(self.process.run(command, environment))
        )
        self.thread.start()

    def end(self) -> tuple[int, str]:
        self.thread.join()
        return self.ended[0]


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    """A command that ends with 3 when it is asked to stop, and has a child that does not."""
    script = (
        f"trap 'exit 3' TERM; (trap '' TERM; exec sleep 300) & echo $! > '{tmp_path}/child'; "
        f"echo rank $RANK; mv '{tmp_path}/child' '{tmp_path}/ready'; "
        "while :; do sleep 0.05; done"
    )
    made = Running(["sh", "-c", script], {"RANK": "1"})
    try:
        wait_until((tmp_path / "ready").exists, what="the command")
        yield made
    finally:
        made.process.kill()
        made.thread.join()


def test_command_that_is_asked_to_stop_ends_with_its_exit_code(
    running: Running, tmp_path: Path
) -> None:
    running.process.stop()
    os.kill(int((tmp_path / "ready").read_text()), signal.SIGKILL)  # it has the same output
    assert running.end() == (CANCELLED, "rank 1\n")
    running.process.stop()
    running.process.kill()


def test_command_is_killed_with_its_children(running: Running, tmp_path: Path) -> None:
    running.process.kill()
    assert running.end() == (-signal.SIGKILL, "rank 1\n")
    child = int((tmp_path / "ready").read_text())
    wait_until(lambda: not is_running(child), what="the end of its child")


def is_running(pid: int) -> bool:
    """Return whether a process runs, which a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_process_that_is_asked_to_stop_before_it_runs_starts_nothing(tmp_path: Path) -> None:
    process = Process()
    process.stop()
    assert process.run(["touch", str(tmp_path / "started")], {}) == (-signal.SIGTERM, "")
    assert not (tmp_path / "started").exists()


def test_interpreter_without_ray_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    arguments = ["--processes", "2", "--cpus", "1", "--gpus", "0", "--", "true"]
    assert main(arguments) == REFUSED
    assert f"RAY_PROCESSES is 2, and {sys.executable} has no package ray" in capsys.readouterr().err
