"""Runs on a Ray cluster whose nodes have only the object store in common with the worker.

What stands in for Ray runs each job as Ray does, by a shell in a session of its own, and with an
artifact directory of the node's own: a mount that no other process sees.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from pytest_django import Settings

from feedback_app.accounts.models import User
from feedback_app.feedback.models import Project
from feedback_app.training.launchers import ray_jobs
from feedback_app.training.launchers.base import DONE, Job
from feedback_app.training.launchers.child_process import ProcessLauncher
from feedback_app.training.launchers.ray_jobs import RayLauncher
from feedback_app.training.models import Run
from feedback_app.training.runs.claims import run_claim
from feedback_app.training.runs.config import RunConfig
from feedback_app.training.runs.execution.sequence import run_execute
from feedback_app.training.runs.services import run_cancel, run_request
from tests.engines import wait_until
from tests.mounts import mounts_allowed, with_directory
from tests.s3 import Bucket
from tests.training.executing import execute, execute_in_thread
from tests.training.launchers.test_accelerate import has_event, weights
from tests.training.runs.test_object_store import stored_checkpoint

CONFIG = RunConfig(epochs=4, batch_size=4, kl_brake=10)


class Node:
    """The API of Ray Jobs, and one node that runs them: `directory` is its artifact directory."""

    def __init__(self, directory: Path, seen_as: Path) -> None:
        self.directory, self.seen_as = directory, seen_as
        self.jobs: dict[str, dict[str, Any]] = {}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def answer(self, request: httpx.Request) -> httpx.Response:
        parts = request.url.path.strip("/").split("/")
        if request.method == "POST" and len(parts) == 2:
            return httpx.Response(200, json=self.start(json.loads(request.content)))
        if len(parts) == 2:
            return httpx.Response(200, json=[self.state(name) for name in self.jobs])
        if parts[-1] == "stop":
            self.jobs[parts[2]]["stopped"] = True
            self.processes[parts[2]].send_signal(signal.SIGTERM)
        return httpx.Response(200, json=self.state(parts[2]))

    def start(self, body: dict[str, Any]) -> dict[str, Any]:
        name = body["submission_id"]
        self.jobs[name] = body
        self.processes[name] = subprocess.Popen(
            with_directory(self.directory, self.seen_as, ["sh", "-c", body["entrypoint"]]),
            start_new_session=True,
            env={**os.environ, **body["runtime_env"]["env_vars"]},
        )
        return {"submission_id": name}

    def state(self, name: str) -> dict[str, Any]:
        code = self.processes[name].poll()
        job = self.jobs[name]
        ended = "STOPPED" if job.get("stopped") else "SUCCEEDED" if code == 0 else "FAILED"
        return {
            **{key: job[key] for key in ("submission_id", "metadata")},
            "status": "RUNNING" if code is None else ended,
            "driver_exit_code": code if code is not None and code >= 0 else None,
            "message": "",
        }

    def lose(self) -> None:
        """Kill what runs and delete the node's files."""
        for process in self.processes.values():
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        shutil.rmtree(self.directory)


@pytest.fixture
def node(tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Node:
    """The only node of the cluster at RAY_ADDRESS; it is another one after `lose`."""
    settings.ARTIFACT_ROOT = tmp_path / "artifacts"
    settings.ARTIFACT_ROOT.mkdir()
    made = Node(tmp_path / "node", settings.ARTIFACT_ROOT)
    settings.TRAINER_LAUNCHER, settings.TRAINER_LAUNCHERS = "ray", ["ray"]
    settings.RAY_ADDRESS, settings.RAY_AUTH_TOKEN = "http://ray:8265", ""
    settings.RAY_PYTHON, settings.RAY_CPUS, settings.RAY_GPUS = sys.executable, 1.0, 0.0
    client = httpx.Client
    transport = httpx.MockTransport(made.answer)
    monkeypatch.setattr(
        ray_jobs.httpx, "Client", lambda **options: client(**options, transport=transport)
    )
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return made


def test_job_without_a_tree_runs_on_the_worker(
    node: Node, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Influence reports and reproductions have directories that no other host brings."""
    settings.ARTIFACT_URL = "memory://store"
    monkeypatch.setattr("feedback_app.training.launchers.child_process.sys.executable", "true")
    launcher = RayLauncher()
    assert launcher.elsewhere
    name = launcher.submit(Job("influence-1-1", "influence", tmp_path))
    wait_until(lambda: launcher.poll(name) is not None, what="the end of the job")
    assert launcher.poll(name) == DONE
    launcher.cancel(name)
    launcher.end(name)
    assert launcher.logs(name) == ""
    assert node.jobs == {}


@pytest.fixture
def small(small: Project, bucket: Bucket, settings: Settings, tmp_path: Path) -> Project:
    """The project, with a tiny model that all hosts have."""
    pytest.importorskip("torch")
    from tests.tiny import make_tiny_model

    settings.MODELS_ROOT, settings.TRAINER_NICE = tmp_path / "models", 0
    make_tiny_model(settings.MODELS_ROOT / "SmolLM2-135M-Instruct")
    return small


needs_mounts = pytest.mark.skipif(
    not mounts_allowed(), reason="no mounts of its own for a process here"
)


@needs_mounts
@pytest.mark.slow
@pytest.mark.long
@pytest.mark.django_db(transaction=True)
def test_run_whose_node_is_lost_resumes_on_an_empty_node_to_the_same_adapter(
    node: Node, small: Project, admin: User, bucket: Bucket, settings: Settings
) -> None:
    undisturbed = run_request(project=small, by=admin, config=CONFIG)
    claim = run_claim(undisturbed.pk)
    assert claim is not None
    run_execute(claim, ProcessLauncher())
    undisturbed.refresh_from_db()
    assert undisturbed.status == Run.Status.SUCCEEDED, undisturbed.error
    expected = weights(undisturbed)
    settings.ARTIFACT_URL = bucket.url

    run = run_request(project=small, by=admin, config=CONFIG)
    thread = execute_in_thread(run)
    wait_until(stored_checkpoint(run, bucket), what="a checkpoint in the store")
    # the worker has the events, and no checkpoint
    assert has_event(run, "step")()
    assert not (run.directory / "checkpoints").exists()
    node.lose()
    thread.join()
    run.refresh_from_db()
    assert (run.status, run.attempt) == (Run.Status.QUEUED, 1), run.error

    execute(run)

    assert run.status == Run.Status.SUCCEEDED, run.error
    assert run.attempt == 2
    assert "resumed from step" in " ".join(run.notes.values_list("text", flat=True))
    steps = list(run.metrics.order_by("step").values_list("step", flat=True))
    assert steps == list(range(1, undisturbed.metrics.count() + 1))
    assert weights(run) == expected
    # nothing of the run is left on the node, nor of its events in the store
    assert list((node.directory / "runs").iterdir()) == []
    assert bucket.objects("here/jobs") == []


@needs_mounts
@pytest.mark.slow
@pytest.mark.long
@pytest.mark.django_db(transaction=True)
def test_cancelled_run_has_the_checkpoint_of_its_node(
    node: Node, small: Project, admin: User, bucket: Bucket, settings: Settings
) -> None:
    settings.ARTIFACT_URL = bucket.url
    run = run_request(project=small, by=admin, config=RunConfig(epochs=20, batch_size=4))
    thread = execute_in_thread(run)
    wait_until(has_event(run, "step"), what="a step that arrived here")
    run_cancel(run=run, by=admin)
    thread.join()

    run.refresh_from_db()
    assert (run.status, run.attempt) == (Run.Status.CANCELLED, 1)
    assert has_event(run, "cancelled")()
    assert (run.directory / "checkpoints").is_dir()
