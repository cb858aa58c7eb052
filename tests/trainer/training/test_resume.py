"""Cancel, kill and resume a real child process: the result is that of an undisturbed run."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engines import PATIENCE
from tests.trainer.conftest import MakeRun, events
from trainer.artifacts.adapter_directory import MANIFEST, WEIGHTS, verify_adapter

pytestmark = pytest.mark.slow

DEADLINE = PATIENCE
SETTINGS = {"epochs": 8, "lora_dropout": 0.1, "probe_every": 5, "kl_brake": 50.0}


@pytest.fixture
def children() -> Iterator[list[subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for child in started:
        if child.poll() is None:
            child.kill()
            child.wait()
        if child.stderr is not None:
            child.stderr.close()


def start(run_dir: Path, children: list[subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
    child = subprocess.Popen(
        [sys.executable, "-m", "trainer", "train", str(run_dir)],
        stderr=subprocess.PIPE,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )
    children.append(child)
    return child


def run(run_dir: Path, children: list[subprocess.Popen[bytes]]) -> int:
    child = start(run_dir, children)
    return child.wait(timeout=DEADLINE)


def wait_for(run_dir: Path, kind: str, child: subprocess.Popen[bytes], count: int = 1) -> None:
    """Wait until the child has written `count` events of a kind."""
    path = run_dir / "events.jsonl"
    until = time.monotonic() + DEADLINE
    while time.monotonic() < until:
        text = path.read_text() if path.exists() else ""
        if text.count(f'"type": "{kind}"') >= count:
            return
        assert child.poll() is None, f"the run ended before its event {kind!r}"
        os.sched_yield()
    raise AssertionError(f"no event {kind!r} within {DEADLINE} s")


def result(run_dir: Path) -> tuple[bytes, bytes]:
    """The weights and the fit of a finished run."""
    return (run_dir / "adapter" / WEIGHTS).read_bytes(), (run_dir / "fit.jsonl").read_bytes()


@pytest.mark.long
def test_sigterm_and_sigkill_change_nothing_in_the_result(
    make_run: MakeRun, children: list[subprocess.Popen[bytes]]
) -> None:
    quiet, cancelled, killed = (
        make_run(name, **SETTINGS) for name in ("quiet", "cancelled", "killed")
    )
    assert run(quiet, children) == 0

    child = start(cancelled, children)
    wait_for(cancelled, "step", child, count=3)
    child.send_signal(signal.SIGTERM)
    assert child.wait(timeout=DEADLINE) == 3
    assert child.stderr is not None
    assert b"start it again to resume" in child.stderr.read()
    (notice,) = events(cancelled, "cancelled")
    assert not (cancelled / "adapter").exists()
    assert run(cancelled, children) == 0
    assert events(cancelled, "start")[-1]["resumed_from_step"] == notice["step"] >= 3

    child = start(killed, children)
    wait_for(killed, "checkpoint", child, count=4)
    child.kill()
    child.wait()
    assert run(killed, children) == 0
    assert events(killed, "start")[-1]["resumed_from_step"] >= 4

    assert result(cancelled) == result(quiet)
    assert result(killed) == result(quiet)


@pytest.mark.long
def test_kill_in_the_final_write_ends_with_one_whole_adapter(
    make_run: MakeRun, children: list[subprocess.Popen[bytes]]
) -> None:
    quiet, killed = make_run("quiet"), make_run("killed")
    assert run(quiet, children) == 0
    assert run(killed, children) == 0
    # what a kill between the files of the final write leaves behind
    (killed / "adapter" / MANIFEST).unlink()
    (killed / ".adapter.partial").mkdir()
    (killed / ".adapter.partial" / WEIGHTS).write_bytes(b"half")
    assert run(killed, children) == 0
    verify_adapter(killed / "adapter", base_fingerprint=None, max_rank=4)
    assert result(killed) == result(quiet)
    assert not (killed / ".adapter.partial").exists()


@pytest.mark.long
def test_exit_codes_show_whether_to_retry(
    make_run: MakeRun, children: list[subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    refused = make_run("refused", beta=-1)
    child = start(refused, children)
    assert child.wait(timeout=DEADLINE) == 4
    assert child.stderr is not None
    assert b"beta must be above 0" in child.stderr.read()

    failed = make_run("failed", kl_brake=1e-9, probe_every=2)
    assert run(failed, children) == 5
    (event,) = events(failed, "failed")
    assert event["step"] == 2
    assert "over the brake" in event["reason"]
    assert event["advice"].startswith("lower learning_rate")

    assert run(tmp_path / "nowhere", children) == 4


@pytest.mark.long
def test_read_only_run_directory_is_reported_in_one_sentence(
    make_run: MakeRun, children: list[subprocess.Popen[bytes]]
) -> None:
    # permissions do not stop root: a file where a directory must be made does the same
    run_dir = make_run()
    (run_dir / "checkpoints").write_text("in the way")
    child = start(run_dir, children)
    assert child.wait(timeout=DEADLINE) == 1
    assert child.stderr is not None
    words = child.stderr.read().decode()
    assert "File exists" in words
    assert "Traceback" not in words


@pytest.mark.long
def test_plan_of_the_shell_is_json(
    make_run: MakeRun, children: list[subprocess.Popen[bytes]]
) -> None:
    run_dir = make_run()
    done = subprocess.run(
        [sys.executable, "-m", "trainer", "plan", str(run_dir)],
        capture_output=True,
        check=True,
        timeout=DEADLINE,
    )
    assert json.loads(done.stdout)["steps"] == 6


@pytest.mark.long
@pytest.mark.parametrize("moment", ["write", "exit"])
def test_sigterm_during_the_failure_report_does_not_cut_it_off(
    make_run: MakeRun, children: list[subprocess.Popen[bytes]], moment: str
) -> None:
    # what the launcher does to the last process when another one of the run has died
    run_dir = make_run()
    (run_dir / "examples.jsonl").write_text("no example\n")
    child = subprocess.Popen(
        [sys.executable, "-c", FAILS_UNDER_SIGTERM, str(run_dir), moment],
        stderr=subprocess.PIPE,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )
    children.append(child)
    assert child.wait(timeout=DEADLINE) == 4
    assert child.stderr is not None
    assert b"examples.jsonl" in child.stderr.read()
    assert len(events(run_dir, "failed")) == 1


FAILS_UNDER_SIGTERM = """
import os, signal, sys
from trainer.training import train
from trainer.__main__ import main
from trainer.events import EventLog

run_dir, moment = sys.argv[1:]
write, log_exit = EventLog.write, EventLog.__exit__

def signalled_write(self, kind, **values):
    if kind == "failed":
        os.kill(os.getpid(), signal.SIGTERM)
    write(self, kind, **values)

def signalled_exit(self, *error):
    os.kill(os.getpid(), signal.SIGTERM)
    return log_exit(self, *error)

if moment == "write":
    EventLog.write = signalled_write
else:
    EventLog.__exit__ = signalled_exit
sys.exit(main(["train", run_dir]))
"""
