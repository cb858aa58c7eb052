"""The launcher `ray` on a real cluster of two nodes: lost nodes, cancelled runs, object storage,
and runs of two processes on both nodes.

`make test-ray` installs Ray and runs this; PROSPECT_RAY names its command.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_django import Settings

from feedback_app.accounts.models import User
from feedback_app.feedback.models import Project
from feedback_app.training.launchers.base import REFUSED, Job
from feedback_app.training.launchers.ray_jobs import RayLauncher
from feedback_app.training.models import Run
from feedback_app.training.runs.config import RunConfig
from feedback_app.training.runs.services import run_cancel, run_request
from tests.engines import wait_until
from tests.mounts import mounts_allowed
from tests.ray_cluster import NODE_CPUS, RayCluster, kill_tree, ray_command, run_ray_cluster, tree
from tests.s3 import Bucket, Server
from tests.stacks import database_url
from tests.training.executing import execute, execute_in_thread
from tests.training.launchers.test_accelerate import has_event, processes_of, weights

CONFIG = RunConfig(epochs=4, batch_size=4, kl_brake=10)
#: More CPUs than a node has: a job that waits.
TOO_MANY = 50

pytestmark = [
    pytest.mark.slow,
    pytest.mark.long,
    pytest.mark.skipif(
        ray_command() is None, reason="PROSPECT_RAY names no Ray: `make test-ray` installs one"
    ),
]


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The artifact directory of which each node has its own."""
    return tmp_path_factory.mktemp("hosts") / "artifacts"


@pytest.fixture(scope="module")
def cluster(private: Path, s3_server: Server) -> Iterator[RayCluster]:
    ray = ray_command()
    assert ray is not None
    with run_ray_cluster(ray, artifacts=private, store=s3_server) as running:
        yield running


@pytest.fixture
def root(
    cluster: RayCluster, tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A directory with a tiny model, whose runs are jobs of the cluster that take one CPU."""
    pytest.importorskip("torch")
    from tests.tiny import make_tiny_model

    settings.MODELS_ROOT, settings.ARTIFACT_ROOT = tmp_path / "models", tmp_path / "artifacts"
    settings.TRAINER_NICE = 0
    settings.TRAINER_LAUNCHER, settings.TRAINER_LAUNCHERS = "ray", ["ray"]
    settings.RAY_ADDRESS, settings.RAY_AUTH_TOKEN = cluster.address, cluster.token
    settings.RAY_PYTHON, settings.RAY_CPUS, settings.RAY_GPUS = cluster.python, 1.0, 0.0
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    make_tiny_model(settings.MODELS_ROOT / "SmolLM2-135M-Instruct")
    return tmp_path


def worker_start(run: Run, root: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start a worker process that executes the run on the cluster of these variables."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.training.launchers.one_run", str(run.pk), str(root)],
        env={
            **os.environ,
            **environment,
            "DJANGO_SETTINGS_MODULE": "feedback_app.config.settings",
            "DATABASE_URL": database_url(),
            "TRAINER_NICE": "0",
        },
    )


@pytest.mark.django_db
def test_node_without_the_run_directory_refuses_with_the_reason(root: Path, tmp_path: Path) -> None:
    launcher = RayLauncher()
    job = Job(name="run-1-1-train", command="train", directory=tmp_path / "not mounted")
    launcher.submit(job)
    wait_until(lambda: launcher.poll(job.name) is not None, what="the end of the job")
    assert launcher.poll(job.name) == REFUSED
    assert launcher.logs(job.name).splitlines()[-1] == (
        f"This node of the Ray cluster has no {job.directory}: mount ARTIFACT_ROOT at the same path"
    )


@pytest.mark.django_db(transaction=True)
def test_run_cancelled_in_the_middle_ends_after_a_checkpoint(
    small: Project, admin: User, root: Path, cluster: RayCluster
) -> None:
    run = run_request(project=small, by=admin, config=RunConfig(epochs=20, batch_size=4))
    thread = execute_in_thread(run)
    wait_until(has_event(run, "step"), what="a step")
    run_cancel(run=run, by=admin)
    thread.join()

    run.refresh_from_db()
    assert (run.status, run.attempt) == (Run.Status.CANCELLED, 1)
    assert has_event(run, "cancelled")()
    assert (run.directory / "checkpoints").is_dir()
    assert processes_of(run) == []


@pytest.mark.django_db(transaction=True)
def test_run_cancelled_while_its_job_waits_for_a_node_ends_at_once(
    small: Project, admin: User, root: Path, cluster: RayCluster, settings: Settings
) -> None:
    settings.RAY_CPUS = TOO_MANY
    run = run_request(project=small, by=admin, config=CONFIG)
    thread = execute_in_thread(run)
    directory = str(run.directory)
    wait_until(
        lambda: directory in [job["metadata"].get("directory") for job in cluster.jobs()],
        what="a job that waits",
    )
    run_cancel(run=run, by=admin)
    thread.join()

    run.refresh_from_db()
    assert (run.status, run.attempt) == (Run.Status.CANCELLED, 1)
    assert not has_event(run, "start")()


@pytest.mark.skipif(not mounts_allowed(), reason="no mounts of its own for a process here")
@pytest.mark.django_db(transaction=True)
def test_run_on_a_node_with_object_storage_alone(
    small: Project, admin: User, root: Path, private: Path, bucket: Bucket, settings: Settings
) -> None:
    settings.ARTIFACT_ROOT, settings.ARTIFACT_URL = private, bucket.url
    run = execute(run_request(project=small, by=admin, config=CONFIG))
    assert run.status == Run.Status.SUCCEEDED, run.error
    assert run.adapter.directory.is_relative_to(private)
    assert weights(run)
    assert has_event(run, "done")()
    assert bucket.objects("here/jobs") == []


@pytest.mark.skipif(not mounts_allowed(), reason="no mounts of its own for a process here")
@pytest.mark.django_db(transaction=True)
def test_run_of_two_processes_on_nodes_with_object_storage_alone(
    small: Project, admin: User, root: Path, private: Path, bucket: Bucket, settings: Settings
) -> None:
    settings.ARTIFACT_ROOT, settings.ARTIFACT_URL = private, bucket.url
    settings.RAY_PROCESSES = 2
    run = execute(run_request(project=small, by=admin, config=CONFIG))
    assert run.status == Run.Status.SUCCEEDED, run.error
    assert run.facts["processes"] == 2
    assert weights(run)
    assert bucket.objects("here/jobs") == []


# this one and those after it end the second node
@pytest.mark.django_db(transaction=True)
def test_run_whose_node_is_lost_resumes_on_the_other_to_the_adapter_of_an_undisturbed_run(
    small: Project, admin: User, root: Path, cluster: RayCluster, settings: Settings
) -> None:
    settings.TRAINER_LAUNCHER, settings.TRAINER_LAUNCHERS = "process", ["process"]
    undisturbed = execute(run_request(project=small, by=admin, config=CONFIG))
    assert undisturbed.status == Run.Status.SUCCEEDED, undisturbed.error
    settings.TRAINER_LAUNCHER, settings.TRAINER_LAUNCHERS = "ray", ["ray"]

    run = run_request(project=small, by=admin, config=CONFIG)
    # on the second node, which alone has so many CPUs
    worker = worker_start(run, root, cluster.environment(cpus=NODE_CPUS))
    try:
        wait_until(has_event(run, "checkpoint"), what="a checkpoint")
        (trainer,) = processes_of(run)
        assert trainer in tree(cluster.node.pid)
        kill_tree(cluster.node)
        # it asks the cluster until that has noticed
        assert worker.wait() == 0
    finally:
        worker.kill()
        worker.wait()
    assert not has_event(run, "done")()
    run.refresh_from_db()
    assert (run.status, run.attempt) == (Run.Status.QUEUED, 1)

    execute(run)

    assert run.status == Run.Status.SUCCEEDED, run.error
    assert run.attempt == 2
    notes = " ".join(run.notes.values_list("text", flat=True))
    assert "resumed from step" in notes
    steps = list(run.metrics.order_by("step").values_list("step", flat=True))
    assert steps == list(range(1, undisturbed.metrics.count() + 1))
    assert weights(run) == weights(undisturbed)
    # training and evaluation are jobs of the cluster
    states = [
        job["status"]
        for job in cluster.jobs()
        if str(run.directory) in job["metadata"].get("directory", "")
    ]
    assert sorted(states) == ["FAILED", "SUCCEEDED", "SUCCEEDED"]


@pytest.fixture
def small_node(cluster: RayCluster) -> Iterator[subprocess.Popen[bytes]]:
    """A node of one CPU, as the head's: each has room for one of two processes."""
    kill_tree(cluster.node)
    node = cluster.start(1)
    yield node
    kill_tree(node)


@pytest.mark.django_db(transaction=True)
def test_run_of_two_processes_cancelled_in_the_middle_ends_both_after_a_checkpoint(
    small: Project,
    admin: User,
    root: Path,
    settings: Settings,
    small_node: subprocess.Popen[bytes],
) -> None:
    settings.RAY_PROCESSES = 2
    run = run_request(project=small, by=admin, config=RunConfig(epochs=20, batch_size=4))
    thread = execute_in_thread(run)
    wait_until(has_event(run, "step"), what="a step")
    run_cancel(run=run, by=admin)
    thread.join()

    run.refresh_from_db()
    assert (run.status, run.attempt) == (Run.Status.CANCELLED, 1)
    assert has_event(run, "cancelled")()
    assert (run.directory / "checkpoints").is_dir()
    assert processes_of(run) == []


@pytest.mark.django_db(transaction=True)
def test_run_of_two_processes_whose_node_is_lost_resumes_on_another_to_the_same_adapter(
    small: Project,
    admin: User,
    root: Path,
    cluster: RayCluster,
    settings: Settings,
    small_node: subprocess.Popen[bytes],
) -> None:
    settings.TRAINER_LAUNCHER, settings.TRAINER_LAUNCHERS = "accelerate", ["accelerate"]
    settings.TRAINER_PROCESSES = settings.RAY_PROCESSES = 2
    undisturbed = execute(run_request(project=small, by=admin, config=CONFIG))
    assert undisturbed.status == Run.Status.SUCCEEDED, undisturbed.error
    settings.TRAINER_LAUNCHER, settings.TRAINER_LAUNCHERS = "ray", ["ray"]

    run = run_request(project=small, by=admin, config=CONFIG)
    worker = worker_start(run, root, cluster.environment(cpus=1, processes=2))
    try:
        wait_until(has_event(run, "checkpoint"), what="a checkpoint")
        trainers = processes_of(run)
        assert len(trainers) == 2
        assert len(set(trainers) & set(tree(small_node.pid))) == 1
        kill_tree(small_node)
        assert worker.wait() == 0
    finally:
        worker.kill()
        worker.wait()
    assert not has_event(run, "done")()
    assert processes_of(run) == []
    run.refresh_from_db()
    assert (run.status, run.attempt) == (Run.Status.QUEUED, 1)

    another = cluster.start(1)
    try:
        execute(run)
    finally:
        kill_tree(another)

    assert run.status == Run.Status.SUCCEEDED, run.error
    assert (run.attempt, run.facts["processes"]) == (2, 2)
    assert "resumed from step" in " ".join(run.notes.values_list("text", flat=True))
    steps = list(run.metrics.order_by("step").values_list("step", flat=True))
    assert steps == list(range(1, undisturbed.metrics.count() + 1))
    assert weights(run) == weights(undisturbed)
