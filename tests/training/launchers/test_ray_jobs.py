"""The launcher `ray`: what it asks of Ray Jobs, and what it makes of the answers.

The answers are those of a cluster of Ray 2.60; test_ray_cluster.py runs a real one.
"""

import json
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from pytest_django import Settings

from feedback_app.training.launchers import ray_jobs
from feedback_app.training.launchers.base import (
    CANCELLED,
    DONE,
    FAILED,
    OUTPUT,
    REFUSED,
    Job,
    LaunchError,
)
from feedback_app.training.launchers.ray_jobs import NODE_LOST, RayLauncher

TRACEBACK = """Traceback (most recent call last):
  File "ray/dashboard/modules/job/job_manager.py", line 553, in submit_job
    raise ValueError(
ValueError: Job with submission_id run-7-1-train already exists. Use another.
.
"""
#: The end of a job's description when it found no node within the cluster's time limit.
NOT_PLACED = {
    "status": "FAILED",
    "error_type": "JOB_SUPERVISOR_ACTOR_START_TIMEOUT",
    "message": "Job supervisor actor failed to start within 900.0 seconds.",
    "driver_exit_code": None,
}
NODE_DIED = """Job supervisor actor died: The actor died unexpectedly before finishing this task.
\tclass_name: JobSupervisor
The actor died because its node has died. Node Id: 17f32dcd
\tthe actor's node was terminated unexpectedly: health check failed"""


class Cluster:
    """Answers of Ray's dashboard, and what it was asked."""

    def __init__(self) -> None:
        self.jobs: dict[str, dict[str, Any]] = {}
        self.asked: list[str] = []
        self.headers: list[httpx.Headers] = []
        self.away = False

    @property
    def job(self) -> dict[str, Any]:
        """The newest job."""
        return list(self.jobs.values())[-1]

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(f"{request.method} {request.url.path}")
        self.headers.append(request.headers)
        if self.away:
            raise httpx.ConnectError("refused", request=request)
        parts = request.url.path.strip("/").split("/")
        if request.method == "POST" and len(parts) == 2:
            body = json.loads(request.content)
            if body["submission_id"] in self.jobs:
                return httpx.Response(500, text=TRACEBACK)
            self.jobs[body["submission_id"]] = {**body, "status": "PENDING"}
            return httpx.Response(200, json={"submission_id": body["submission_id"]})
        if len(parts) == 2:
            return httpx.Response(200, json=list(self.jobs.values()))
        if parts[2] not in self.jobs:
            return httpx.Response(404, text=f"Job {parts[2]} does not exist")
        job = self.jobs[parts[2]]
        if parts[-1] == "stop":
            # one that waits for a node is stopped when it would start
            if job["status"] == "RUNNING":
                job["status"] = "STOPPED"
            return httpx.Response(200, json={"stopped": True})
        return httpx.Response(200, json=job)


@pytest.fixture
def cluster(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    made = Cluster()
    settings.RAY_ADDRESS, settings.RAY_AUTH_TOKEN = "http://ray:8265", "token-of-the-cluster"
    settings.RAY_CPUS, settings.RAY_GPUS, settings.RAY_PYTHON = 2.0, 1.0, "/opt/python"
    monkeypatch.setattr(ray_jobs, "POLL_SECONDS", 0.0)

    client = httpx.Client

    def connected(**options: Any) -> httpx.Client:
        return client(**options, transport=httpx.MockTransport(made.answer))

    monkeypatch.setattr(ray_jobs.httpx, "Client", connected)
    return made


@pytest.fixture
def job(tmp_path: Path) -> Job:
    directory = tmp_path / "a run"
    directory.mkdir()
    return Job(
        name="run-7-1-train",
        command="train",
        directory=directory,
        nice=10,
        environment={"PROSPECT_REQUEST_ID": "abc"},
    )


def test_job_has_the_trainers_command_its_resources_and_the_clusters_token(
    cluster: Cluster, job: Job
) -> None:
    RayLauncher().submit(job)
    (sent,) = cluster.jobs.values()
    directory = str(job.directory)
    assert sent["entrypoint"] == (
        f"[ -d '{directory}' ] || {{ echo 'This node of the Ray cluster has no {directory}: mount "
        "ARTIFACT_ROOT at the same path'; exit 4; }; "
        f"exec /opt/python -m trainer train '{directory}' --nice 10 --stop-with-parent "
        f">> '{directory}/trainer.log' 2>&1"
    )
    assert (sent["entrypoint_num_cpus"], sent["entrypoint_num_gpus"]) == (2, 1)
    assert sent["runtime_env"]["env_vars"]["PROSPECT_REQUEST_ID"] == "abc"
    assert sent["runtime_env"]["env_vars"]["RAY_JOB_STOP_WAIT_TIME_S"] == "60"
    assert {found["Authorization"] for found in cluster.headers} == {"Bearer token-of-the-cluster"}


def test_run_of_several_processes_reserves_a_place_for_each(
    cluster: Cluster, job: Job, settings: Settings
) -> None:
    settings.RAY_PROCESSES = 4
    launcher = RayLauncher()
    launcher.submit(job)
    *options, shell = shlex.split(cluster.job["entrypoint"])
    assert options == [
        *("exec", "/opt/python", "-m", "trainer.distributed.ray_processes", "--processes", "4"),
        *("--cpus", "2.0", "--gpus", "1.0", "--", "sh", "-c"),
    ]
    assert shell.endswith(
        f"exec /opt/python -m trainer train '{job.directory}' --nice 10 "
        f"--stop-with-parent >> '{job.directory}/trainer.log' 2>&1"
    )
    # the job itself takes nothing, and waits on the head
    assert (cluster.job["entrypoint_num_cpus"], cluster.job["entrypoint_num_gpus"]) == (0, 0)

    launcher.submit(replace(job, name="run-7-1-evaluate", command="evaluate"))
    assert "ray_processes" not in cluster.job["entrypoint"]
    assert cluster.job["entrypoint_num_cpus"] == 2


def test_processes_of_a_run_that_have_object_storage_alone_are_on_different_nodes(
    cluster: Cluster, job: Job, settings: Settings
) -> None:
    settings.RAY_PROCESSES, settings.ARTIFACT_URL = 2, "memory://store"
    RayLauncher().submit(replace(job, tree="runs/7"))
    *options, shell = shlex.split(cluster.job["entrypoint"])
    assert options[-4:] == ["--spread", "--", "sh", "-c"]
    assert shell.startswith("exec /opt/python -m artifact_store.remote_job ")


@pytest.mark.parametrize(
    ("found", "code"),
    [
        ({"status": "PENDING"}, None),
        ({"status": "RUNNING"}, None),
        ({"status": "SUCCEEDED", "driver_exit_code": 0}, DONE),
        ({"status": "FAILED", "driver_exit_code": 4}, REFUSED),
        ({"status": "FAILED", "driver_exit_code": -9}, -9),
        # the node was lost
        ({"status": "FAILED", "driver_exit_code": None}, NODE_LOST),
        # somebody else stopped it
        ({"status": "STOPPED"}, NODE_LOST),
    ],
)
def test_state_of_a_job_is_the_trainers_exit_code(
    cluster: Cluster, job: Job, found: dict[str, Any], code: int | None
) -> None:
    launcher = RayLauncher()
    name = launcher.submit(job)
    cluster.job.update(found)
    assert launcher.poll(name) == code


def test_cancelled_job_ends_as_cancelled(cluster: Cluster, job: Job) -> None:
    launcher = RayLauncher()
    name = launcher.submit(job)
    cluster.job["status"] = "RUNNING"
    launcher.cancel(name)
    assert launcher.poll(name) == CANCELLED
    launcher.end(name)


def test_cancelled_job_that_waits_for_a_node_ends_as_cancelled(cluster: Cluster, job: Job) -> None:
    launcher = RayLauncher()
    name = launcher.submit(job)
    launcher.cancel(name)
    assert cluster.job["status"] == "PENDING"
    assert launcher.poll(name) == CANCELLED
    launcher.end(name)


def test_next_attempt_stops_the_job_that_a_killed_worker_has_left(
    cluster: Cluster, job: Job
) -> None:
    RayLauncher().submit(job)
    left = cluster.job
    left["status"] = "RUNNING"
    other = Job(name="run-8-1-train", command="train", directory=job.directory / "other")
    RayLauncher().submit(other)
    cluster.asked.clear()

    RayLauncher().submit(Job(name="run-7-2-train", command="train", directory=job.directory))

    stopped = cluster.asked.index(f"POST /api/jobs/{left['submission_id']}/stop")
    assert stopped < cluster.asked.index("POST /api/jobs/")
    assert [found["status"] for found in cluster.jobs.values()] == ["STOPPED", "PENDING", "PENDING"]


def test_job_of_another_installation_in_a_directory_of_the_same_name_goes_on(
    cluster: Cluster, job: Job, settings: Settings
) -> None:
    settings.ARTIFACT_URL = "s3://staging/prospect"
    RayLauncher().submit(replace(job, tree="runs/7"))
    cluster.job["status"] = "RUNNING"
    settings.ARTIFACT_URL = ""
    RayLauncher().submit(job)
    assert [found["status"] for found in cluster.jobs.values()] == ["RUNNING", "PENDING"]


def test_second_evaluation_of_an_attempt_is_a_job_of_its_own(cluster: Cluster, job: Job) -> None:
    launcher = RayLauncher()
    for _ in range(2):
        name = launcher.submit(job)
        cluster.job.update({"status": "SUCCEEDED", "driver_exit_code": 0})
        assert launcher.poll(name) == DONE
    assert len(cluster.jobs) == 2


def test_job_that_found_no_node_in_time_goes_on_waiting(cluster: Cluster, job: Job) -> None:
    launcher = RayLauncher()
    name = launcher.submit(job)
    cluster.job.update(NOT_PLACED)
    assert launcher.poll(name) is None
    assert len(cluster.jobs) == 2
    assert launcher.poll(name) is None
    assert len(cluster.jobs) == 2
    cluster.job["status"] = "RUNNING"
    launcher.cancel(name)
    assert launcher.poll(name) == CANCELLED


def test_job_that_found_no_node_in_time_after_it_was_cancelled_is_not_submitted_again(
    cluster: Cluster, job: Job
) -> None:
    launcher = RayLauncher()
    name = launcher.submit(job)
    launcher.cancel(name)
    cluster.job.update(NOT_PLACED)
    assert launcher.poll(name) == CANCELLED
    assert len(cluster.jobs) == 1


def test_message_of_ray_is_the_output_where_the_trainer_wrote_none(
    cluster: Cluster, job: Job
) -> None:
    (job.directory / OUTPUT).write_text("step 3\n")
    launcher = RayLauncher()
    name = launcher.submit(job)
    text = "Job entrypoint command failed with exit code 4, last available logs:\nno such directory"
    printed = f"{text}\nRunning entrypoint for job run-7-1-train: [ -d\n"
    cluster.job.update({"status": "FAILED", "driver_exit_code": 4, "message": printed})
    assert launcher.poll(name) == REFUSED
    assert launcher.logs(name).endswith("no such directory")

    name = launcher.submit(job)
    (job.directory / OUTPUT).write_text("step 3\nloss is NaN\n")
    cluster.job.update({"status": "FAILED", "driver_exit_code": 5, "message": printed})
    assert launcher.poll(name) == FAILED
    assert launcher.logs(name).endswith("loss is NaN\n")

    name = launcher.submit(job)
    cluster.job.update({"status": "FAILED", "driver_exit_code": None, "message": NODE_DIED})
    assert launcher.poll(name) == NODE_LOST
    assert "its node has died" in launcher.logs(name)


def test_message_of_a_process_on_another_node_follows_the_output_of_the_first(
    cluster: Cluster, job: Job, settings: Settings
) -> None:
    settings.RAY_PROCESSES = 2
    launcher = RayLauncher()
    text = "Job entrypoint command failed with exit code 4, last available logs:"
    for printed, last in (("process 1 ended with 4\nno base model", "no base model"), ("", "lost")):
        name = launcher.submit(job)
        with (job.directory / OUTPUT).open("a") as output:
            output.write("another process was lost\n")
        message = f"{text}\n{printed}\nRunning entrypoint for job run-7-1-train: exec\n"
        cluster.job.update({"status": "FAILED", "driver_exit_code": 4, "message": message})
        assert launcher.poll(name) == REFUSED
        assert launcher.logs(name).rstrip().endswith(last)


def test_silent_cluster_is_asked_again_and_then_the_job_counts_as_lost(
    cluster: Cluster, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    launcher = RayLauncher()
    name = launcher.submit(job)
    cluster.away = True
    assert launcher.poll(name) is None
    monkeypatch.setattr(ray_jobs, "SILENCE_SECONDS", 0.0)
    assert launcher.poll(name) == NODE_LOST
    assert "does not answer" in launcher.logs(name)


@pytest.mark.parametrize("break_it", ["away", "address"])
def test_cluster_that_cannot_be_used_is_named(
    cluster: Cluster, job: Job, settings: Settings, break_it: str
) -> None:
    if break_it == "address":
        settings.RAY_ADDRESS = ""
        with pytest.raises(LaunchError, match="RAY_ADDRESS is not set"):
            RayLauncher()
        return
    cluster.away = True
    with pytest.raises(LaunchError, match="http://ray:8265 did not take the job"):
        RayLauncher().submit(job)


def test_refusal_of_the_cluster_is_reported_with_its_text(
    cluster: Cluster, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        return httpx.Response(401, text="Unauthorized: missing authentication token")

    answer: Callable[[httpx.Request], httpx.Response] = refuse
    monkeypatch.setattr(cluster, "answer", answer)
    monkeypatch.setattr(
        ray_jobs.httpx,
        "Client",
        lambda **options: _client(answer, **options),
    )
    with pytest.raises(LaunchError, match="HTTP 401: Unauthorized"):
        RayLauncher().submit(job)


REAL_CLIENT = httpx.Client


def _client(answer: Callable[[httpx.Request], httpx.Response], **options: Any) -> httpx.Client:
    return REAL_CLIENT(**options, transport=httpx.MockTransport(answer))
