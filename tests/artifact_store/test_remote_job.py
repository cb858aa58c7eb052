"""Jobs on a host that has the object store only: what they bring, what arrives, how they end."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from artifact_store import remote_job
from artifact_store.objects import ObjectStore
from artifact_store.pieces import PieceReceiver, PieceSender
from artifact_store.remote_job import EVENTS, OUTPUT, STORE_FAILED, RemoteJob, command_of, parse
from tests.engines import wait_until
from tests.s3 import Bucket, Server

pytestmark = pytest.mark.slow  # a server process

TREE, NAME = "runs/7", "run-7-3-train-ab12"
STEP, CHECKPOINT = '{"type": "step"}\n', '{"type": "checkpoint"}\n'


@pytest.fixture
def worker(bucket: Bucket, tmp_path: Path) -> ObjectStore:
    """The store on the worker's host, which has handed a run's directory over."""
    store = ObjectStore(tmp_path / "worker", bucket.url)
    store.begin(TREE, 3)
    (store.path(TREE) / EVENTS).write_text(STEP)
    (store.path(TREE) / "config.json").write_text("{}")
    adapter = store.path("adapters/bot@1")
    adapter.mkdir(parents=True)
    (adapter / "weights").write_text("w")
    store.push("adapters/bot@1")
    store.hand_over(TREE, 3)
    return store


@pytest.fixture
def job(bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RemoteJob:
    """The job on another host."""
    for name in ("SEND_SECONDS", "PATIENCE_SECONDS", "AGAIN_SECONDS"):
        monkeypatch.setattr(remote_job, name, 0.0)
    monkeypatch.setattr(signal, "signal", lambda *given: None)  # not of this process
    store = ObjectStore(tmp_path / "node", bucket.url, 2**30)
    return RemoteJob(store, TREE, 3, store.path(TREE), NAME, ("adapters/bot@1",))


def shell(job: RemoteJob, script: str) -> list[str]:
    """Return a command that a shell runs in the job's directory."""
    return ["sh", "-c", f"cd '{job.directory}' && {script}"]


def test_job_works_on_what_the_worker_stored_and_stores_what_it_made(
    worker: ObjectStore, job: RemoteJob
) -> None:
    script = "cat config.json ../../adapters/bot@1/weights; mkdir adapter; echo a > adapter/new"
    assert job.run(shell(job, f"{script}; exit 5")) == 5
    assert not job.store.path(TREE).exists(), "left on the node"

    worker.fetch(TREE, again=True)
    assert (worker.path(TREE) / OUTPUT).read_text() == "{}w"
    assert (worker.path(TREE) / "adapter" / "new").read_text() == "a\n"


def test_worker_without_what_the_job_stored_brings_it_at_its_next_attempt(
    worker: ObjectStore, job: RemoteJob
) -> None:
    assert job.run(shell(job, "echo more >> config.json")) == 0
    worker.begin(TREE, 4)  # the worker was killed meanwhile
    assert (worker.path(TREE) / "config.json").read_text() == "{}more\n"


def test_events_arrive_while_the_command_runs(worker: ObjectStore, job: RemoteJob) -> None:
    events = worker.path(TREE) / EVENTS
    job.store.fetch(TREE)
    sender = PieceSender(job.store.url, NAME, job.directory / EVENTS)
    receiver = PieceReceiver(worker.url, NAME, events)
    for text in (STEP, CHECKPOINT * 2):
        with (job.directory / EVENTS).open("a") as file:
            file.write(text)
        assert sender.send().decode() == text
        assert sender.send() == b""
        receiver.receive()
        receiver.receive()
    assert events.read_text() == STEP * 2 + CHECKPOINT * 2

    # a worker that sees the file itself appends nothing
    PieceReceiver(worker.url, NAME, job.directory / EVENTS).receive()
    assert (job.directory / EVENTS).read_text() == STEP * 2 + CHECKPOINT * 2
    receiver.remove()
    receiver.remove()
    PieceReceiver(worker.url, NAME, worker.path(TREE) / "none").receive()
    assert not (worker.path(TREE) / "none").exists()


def test_tree_is_stored_after_a_checkpoint(
    worker: ObjectStore, job: RemoteJob, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The job ends when the checkpoint has arrived, so that it was stored before its end."""
    seen = tmp_path / "seen"
    script = f"echo c > step-1; echo '{CHECKPOINT.strip()}' >> {EVENTS}"
    wait = f"while [ ! -e '{seen}' ]; do sleep 0.05; done"
    push = RemoteJob._push

    def pushed(self: RemoteJob) -> None:
        push(self)
        if (worker.fetch(TREE, again=True) / "step-1").exists():
            seen.touch()

    monkeypatch.setattr(RemoteJob, "_push", pushed)
    assert job.run(shell(job, f"{script}; {wait}")) == 0


def test_second_process_of_a_run_brings_the_tree_and_stores_nothing(
    worker: ObjectStore,
    job: RemoteJob,
    bucket: Bucket,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("RANK", "1")
    second, _ = parse([*command_of(job, ["true"], python="python")[3:]])
    before = bucket.objects("here")
    script = f"cat config.json && echo '{CHECKPOINT.strip()}' >> {EVENTS}; exit 3"
    assert second.run(shell(second, script)) == 3
    assert capsys.readouterr().out == "{}", "what it printed"
    assert not second.store.path(TREE).exists(), "left on the node"
    assert bucket.objects("here") == before

    monkeypatch.setenv("RANK", "0")
    first, _ = parse([*command_of(job, ["true"], python="python")[3:]])
    assert first.run(shell(first, script)) == 3
    assert bucket.objects("here") != before


def test_job_whose_parent_is_killed_ends_its_command(
    worker: ObjectStore, bucket: Bucket, tmp_path: Path
) -> None:
    """Ray kills an actor with nothing that would tell its children."""
    store = ObjectStore(tmp_path / "node", bucket.url)
    job = RemoteJob(store, TREE, 3, store.path(TREE), NAME)
    script = "trap 'echo c > step-2; exit 3' TERM; touch ready; while :; do sleep 0.05; done"
    command = command_of(job, shell(job, script), python=sys.executable)
    parent = subprocess.Popen(["sh", "-c", f"{shlex.join(command)} & wait"])
    try:
        wait_until((job.directory / "ready").exists, what="the command")
    finally:
        parent.kill()
        parent.wait()
    stored = worker.path(TREE) / "step-2"
    wait_until(lambda: worker.fetch(TREE, again=True) and stored.exists(), what="its checkpoint")
    assert stored.read_text() == "c\n"


def test_store_that_is_away_at_the_start_is_named(
    worker: ObjectStore, job: RemoteJob, s3_server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = RemoteJob(job.store, "runs/8", 1, job.store.path("runs/8"), NAME)
    assert remote_job.main(command_of(gone, ["true"], python="python")[3:]) == STORE_FAILED
    assert "has no runs/8, which this job works on" in capsys.readouterr().err


def test_command_line_has_the_whole_job(job: RemoteJob) -> None:
    command = ["python", "-m", "trainer", "train", "a run", "--nice", "3"]
    words = command_of(job, command, python="/opt/python")
    assert words[:3] == ["/opt/python", "-m", "artifact_store.remote_job"]
    assert parse(words[3:]) == (job, command)


def test_stopped_job_stores_the_checkpoint_that_its_command_writes(
    worker: ObjectStore, bucket: Bucket, tmp_path: Path
) -> None:
    store = ObjectStore(tmp_path / "node", bucket.url)
    job = RemoteJob(store, TREE, 3, store.path(TREE), NAME)
    script = "trap 'echo c > step-2; exit 3' TERM; touch ready; while :; do sleep 0.05; done"
    process = subprocess.Popen(command_of(job, shell(job, script), python=sys.executable))
    try:
        wait_until((job.directory / "ready").exists, what="the command")
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 3
    finally:
        process.kill()
        process.wait()
    assert (worker.fetch(TREE, again=True) / "step-2").read_text() == "c\n"


def test_command_that_is_killed_is_told_from_one_that_ends(
    worker: ObjectStore, job: RemoteJob
) -> None:
    assert job.run(shell(job, "kill -9 $$")) == 128 + signal.SIGKILL
    assert os.path.lexists(worker.path(TREE))
    shutil.rmtree(worker.path(TREE))
    assert (worker.fetch(TREE) / "config.json").exists()
