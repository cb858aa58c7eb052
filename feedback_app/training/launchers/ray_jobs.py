"""Launcher `ray`: a run as a job of an existing Ray cluster, by the REST API of Ray Jobs.

The cluster's nodes have the trainer's image and see ARTIFACT_ROOT and the base models at the same
paths. Ray itself is not needed here. A job survives its worker: the worker that takes the run over
stops it before a job of its own starts.
"""

import contextlib
import os
import shlex
import time
from typing import Any

import httpx
import structlog
from django.conf import settings

from feedback_app.training.launchers.base import (
    CANCELLED,
    DONE,
    END_SECONDS,
    OUTPUT,
    Job,
    LaunchError,
    output_end,
)

log = structlog.get_logger(__name__)

ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
#: The exit code of a job whose node was lost, so that Ray knows none: a crash, which is retried.
NODE_LOST = 1
#: How long the cluster may not answer before its job counts as lost, in seconds.
SILENCE_SECONDS = 60.0
POLL_SECONDS = 0.5
#: Seconds between SIGTERM and SIGKILL when Ray stops a job: the trainer writes a checkpoint.
STOP_SECONDS = 60


class RayLauncher:
    """Runs jobs on the Ray cluster at RAY_ADDRESS."""

    def __init__(self) -> None:
        if not settings.RAY_ADDRESS:
            raise LaunchError(
                "TRAINER_LAUNCHER is ray, and RAY_ADDRESS is not set: name the cluster's "
                "dashboard, such as http://ray-head:8265"
            )
        token = settings.RAY_AUTH_TOKEN
        self._http = httpx.Client(
            base_url=settings.RAY_ADDRESS,
            headers={"Authorization": f"Bearer {token}"} if token else {},
            timeout=30.0,
        )
        self._jobs: dict[str, Job] = {}
        self._answered: dict[str, float] = {}
        self._stopped: set[str] = set()

    def submit(self, job: Job) -> str:
        try:
            self._stop_earlier(job)
            self._request("POST", "/api/jobs/", json=body_of(job))
        except httpx.HTTPError as error:
            raise LaunchError(
                f"The Ray cluster at {settings.RAY_ADDRESS} did not take the job ({error})"
            ) from error
        self._jobs[job.name] = job
        self._answered[job.name] = time.monotonic()
        log.info("trainer_started", job=job.name, command=job.command, cluster=settings.RAY_ADDRESS)
        return job.name

    def poll(self, job_id: str) -> int | None:
        try:
            found = self._request("GET", f"/api/jobs/{job_id}")
        except httpx.HTTPError as error:
            if time.monotonic() - self._answered[job_id] < SILENCE_SECONDS:
                return None
            log.warning("ray_silent", job=job_id, why=str(error))
            return NODE_LOST
        self._answered[job_id] = time.monotonic()
        return self._exit_code(job_id, found)

    def cancel(self, job_id: str) -> None:
        self._stopped.add(job_id)
        # asked again by `end`
        with contextlib.suppress(httpx.HTTPError):
            self._request("POST", f"/api/jobs/{job_id}/stop")

    def end(self, job_id: str, *, seconds: float = END_SECONDS) -> None:
        self._end(job_id, seconds=max(seconds, STOP_SECONDS + END_SECONDS))

    def logs(self, job_id: str) -> str:
        return output_end(self._jobs[job_id].directory)

    def _exit_code(self, job_id: str, found: dict[str, Any]) -> int | None:
        """Return the exit code of a job from its description by Ray."""
        if found["status"] not in ENDED:
            return None
        if found["status"] == "SUCCEEDED":
            return DONE
        code = found.get("driver_exit_code")
        if code is None or found["status"] == "STOPPED":
            return CANCELLED if job_id in self._stopped else NODE_LOST
        return int(code)

    def _stop_earlier(self, job: Job) -> None:
        """End jobs of the same directory that an earlier attempt has left running."""
        for found in self._request("GET", "/api/jobs/"):
            directory = (found.get("metadata") or {}).get("directory")
            if directory == str(job.directory) and found["status"] not in ENDED:
                self._end(found["submission_id"], seconds=STOP_SECONDS + END_SECONDS)

    def _end(self, job_id: str, *, seconds: float) -> None:
        """Stop a job and wait until nothing of it runs any more, or the cluster is silent."""
        until = time.monotonic() + seconds
        asked = False
        while time.monotonic() < until:
            with contextlib.suppress(httpx.HTTPError):
                if self._request("GET", f"/api/jobs/{job_id}")["status"] in ENDED:
                    return
                if not asked:
                    self._request("POST", f"/api/jobs/{job_id}/stop")
                    asked = True
            time.sleep(POLL_SECONDS)
        log.warning("ray_job_not_ended", job=job_id)

    def _request(self, method: str, path: str, **options: Any) -> Any:
        """Return the JSON of an answer. Raises httpx.HTTPError, with Ray's text for a refusal."""
        answer = self._http.request(method, path, **options)
        if answer.is_error:
            raise httpx.HTTPStatusError(
                f"HTTP {answer.status_code}: {answer.text[:500]}",
                request=answer.request,
                response=answer,
            )
        return answer.json()


def body_of(job: Job) -> dict[str, Any]:
    """Return the request that starts a job: the trainer's command, and what it takes of a node."""
    command = [settings.RAY_PYTHON, "-m", "trainer", *job.arguments, "--stop-with-parent"]
    output = shlex.quote(str(job.directory / OUTPUT))
    return {
        "submission_id": job.name,
        # Ray's shell is replaced, so that signals reach the trainer
        "entrypoint": f"exec {shlex.join(command)} >> {output} 2>&1",
        "entrypoint_num_cpus": settings.RAY_CPUS,
        "entrypoint_num_gpus": settings.RAY_GPUS,
        "metadata": {"directory": str(job.directory)},
        "runtime_env": {
            "env_vars": {
                "TOKENIZERS_PARALLELISM": "false",
                "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS),
                **inherited(),
                **job.environment,
            }
        },
    }


def inherited() -> dict[str, str]:
    """Return variables of the worker that change what a run computes."""
    names = ("PROSPECT_BACKEND", "OMP_NUM_THREADS", "PYTHONPATH")
    return {name: os.environ[name] for name in names if name in os.environ}
