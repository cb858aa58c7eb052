"""Launcher `accelerate`: two processes on the CPU train a run, end with their worker and resume."""

import datetime as dt
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from django.db import connection
from django.utils import timezone
from pytest_django import Settings

from feedback_app.accounts.models import User
from feedback_app.feedback.models import Project
from feedback_app.training.launchers import accelerate
from feedback_app.training.launchers.accelerate import (
    AccelerateLauncher,
    Group,
    exit_code,
    gpu_count,
    process_count,
    threads_each,
)
from feedback_app.training.launchers.base import (
    CANCELLED,
    DONE,
    FAILED,
    NOT_WRITTEN,
    REFUSED,
    Job,
    LaunchError,
)
from feedback_app.training.launchers.child_process import ProcessLauncher
from feedback_app.training.launchers.exit_codes import exit_codes_directory
from feedback_app.training.launchers.ray_jobs import RayLauncher
from feedback_app.training.launchers.selection import LAUNCHERS, launcher_selected
from feedback_app.training.models import Run
from feedback_app.training.runs.config import RunConfig
from feedback_app.training.runs.services import run_cancel, run_request
from tests.engines import wait_until
from tests.stacks import database_url
from tests.training.executing import execute

CONFIG = RunConfig(epochs=4, batch_size=4, kl_brake=10)


@pytest.fixture
def root(tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a tiny model; runs are trained by two processes without GPUs."""
    pytest.importorskip("torch")
    from tests.tiny import make_tiny_model

    settings.MODELS_ROOT, settings.ARTIFACT_ROOT = tmp_path / "models", tmp_path / "artifacts"
    settings.TRAINER_LAUNCHER, settings.TRAINER_PROCESSES = "accelerate", 2
    settings.TRAINER_NICE = 0
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    make_tiny_model(settings.MODELS_ROOT / "SmolLM2-135M-Instruct")
    return tmp_path


def worker_start(run: Run, root: Path) -> subprocess.Popen[bytes]:
    """Start a worker process that executes the run."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.training.launchers.one_run", str(run.pk), str(root)],
        env={
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "feedback_app.config.settings",
            "DATABASE_URL": database_url(),
            "TRAINER_LAUNCHER": "accelerate",
            "TRAINER_PROCESSES": "2",
            "TRAINER_NICE": "0",
        },
    )


def processes_of(run: Run) -> list[int]:
    """Return the processes that have the run's directory in their command line."""
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            words = (directory / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if str(run.directory).encode() in words:
            found.append(int(directory.name))
    return found


def has_event(run: Run, kind: str) -> Callable[[], bool]:
    path = run.directory / "events.jsonl"
    return lambda: path.exists() and f'"type": "{kind}"' in path.read_text()


def weights(run: Run) -> bytes:
    found: bytes = (run.adapter.directory / "adapter_model.safetensors").read_bytes()
    return found


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.django_db(transaction=True)
def test_run_killed_with_its_worker_resumes_to_the_adapter_of_an_undisturbed_run(
    small: Project, admin: User, root: Path
) -> None:
    undisturbed = execute(run_request(project=small, by=admin, config=CONFIG))
    assert undisturbed.status == Run.Status.SUCCEEDED, undisturbed.error
    assert undisturbed.facts["processes"] == 2
    assert undisturbed.adapter.name == "bot@1"

    run = run_request(project=small, by=admin, config=CONFIG)
    worker = worker_start(run, root)
    try:
        wait_until(has_event(run, "checkpoint"), what="a checkpoint")
        # accelerate launch and the two processes that train
        assert len(processes_of(run)) == 3
    finally:
        worker.send_signal(signal.SIGKILL)
        worker.wait()
    wait_until(lambda: not processes_of(run), what="the end of the killed worker's processes")
    assert not has_event(run, "done")()
    Run.objects.filter(pk=run.pk).update(heartbeat_at=timezone.now() - dt.timedelta(hours=1))

    execute(run)

    assert run.status == Run.Status.SUCCEEDED, run.error
    assert run.attempt == 2
    notes = " ".join(run.notes.values_list("text", flat=True))
    assert "resumed from step" in notes
    steps = list(run.metrics.order_by("step").values_list("step", flat=True))
    assert steps == list(range(1, undisturbed.metrics.count() + 1))
    assert weights(run) == weights(undisturbed)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.django_db(transaction=True)
def test_run_cancelled_in_the_middle_ends_all_processes_after_a_checkpoint(
    small: Project, admin: User, root: Path
) -> None:
    run = run_request(project=small, by=admin, config=RunConfig(epochs=20, batch_size=4))

    def work() -> None:
        try:
            execute(Run.objects.get(pk=run.pk))
        finally:
            connection.close()

    thread = threading.Thread(target=work)
    thread.start()
    wait_until(has_event(run, "step"), what="a step")
    run_cancel(run=run, by=admin)
    thread.join()

    run.refresh_from_db()
    assert (run.status, run.attempt) == (Run.Status.CANCELLED, 1)
    assert has_event(run, "cancelled")()
    assert (run.directory / "checkpoints").is_dir()
    assert processes_of(run) == []


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.django_db
def test_run_refused_by_both_processes_fails_with_the_reason(
    small: Project, admin: User, root: Path
) -> None:
    run = run_request(project=small, by=admin, config=CONFIG)
    Run.objects.filter(pk=run.pk).update(config={**run.config, "lora_r": -3})
    execute(run)
    assert (run.status, run.attempt) == (Run.Status.FAILED, 1)
    assert "must" in run.error


# -- without processes


class Agent:
    def __init__(self, *, closed: bool) -> None:
        self.stdin = self
        self.closed = closed


def ended_with(directory: Path, *names: str, code: int = 1, asked: bool = False) -> int:
    """Return the exit code of two processes that left these files."""
    job = Job("run-1-1-train", "train", directory)
    group = Group(job, 2, Agent(closed=asked))  # type: ignore[arg-type]
    codes = exit_codes_directory(directory)
    for name in names:
        (codes / name).touch()
    return exit_code(group, code)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ((f"0.{REFUSED}", f"1.{REFUSED}"), REFUSED),
        ((f"0.{CANCELLED}", f"1.{FAILED}"), FAILED),
        ((f"0.{NOT_WRITTEN}", "1.1"), NOT_WRITTEN),
        ((f"0.{CANCELLED}", f"1.{CANCELLED}"), CANCELLED),
        # the other was killed: another attempt, as after a crash
        ((f"0.{CANCELLED}",), 1),
        (("0.1",), 1),
        ((), 1),
    ],
)
def test_exit_code_of_several_processes(
    tmp_path: Path, names: tuple[str, ...], expected: int
) -> None:
    assert ended_with(tmp_path, *names) == expected


def test_exit_code_of_processes_that_were_cancelled_while_they_started(tmp_path: Path) -> None:
    assert ended_with(tmp_path, asked=True) == CANCELLED


def test_exit_code_of_processes_that_are_done(tmp_path: Path) -> None:
    assert ended_with(tmp_path, f"0.{DONE}", f"1.{DONE}", code=0) == DONE


@pytest.mark.parametrize(
    ("visible", "count"), [("", 0), ("-1", 0), ("2", 1), ("0,1,2,3", 4), ("GPU-8f,MIG-2a", 2)]
)
def test_gpus_are_those_that_the_worker_may_use(
    visible: str, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpu_count() == count


def test_gpus_of_the_machine_are_counted_without_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'GPU 0: H200 (UUID: a)'\necho 'GPU 1: H200 (UUID: b)'\n")
    program.chmod(0o755)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert gpu_count() == 2
    monkeypatch.setattr(accelerate.shutil, "which", lambda name: None)
    assert gpu_count() == 0


def test_worker_without_gpus_says_what_to_set(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(LaunchError, match="set TRAINER_PROCESSES"):
        process_count()
    settings.TRAINER_PROCESSES = 3
    assert process_count() == 3


def test_processes_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accelerate.os, "cpu_count", lambda: 8)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert threads_each(4) == 3
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert threads_each(4) == 2
    assert threads_each(16) == 1


def test_every_launcher_can_be_selected(settings: Settings) -> None:
    found = set()
    settings.RAY_ADDRESS = "http://127.0.0.1:8265"
    for settings.TRAINER_LAUNCHER in LAUNCHERS:
        found.add(type(launcher_selected(Project())))
    assert found == {ProcessLauncher, AccelerateLauncher, RayLauncher}


def test_project_chooses_among_the_launchers_that_its_worker_allows(settings: Settings) -> None:
    project = Project(launcher="accelerate")
    settings.TRAINER_LAUNCHER, settings.TRAINER_LAUNCHERS = "process", ["process"]
    assert type(launcher_selected(project)) is ProcessLauncher
    settings.TRAINER_LAUNCHERS = ["process", "accelerate"]
    assert type(launcher_selected(project)) is AccelerateLauncher
    assert type(launcher_selected(Project())) is ProcessLauncher
