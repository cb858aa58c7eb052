"""Launcher `ray`: a run as a job of an existing Ray cluster, by the REST API of Ray Jobs.

The cluster's nodes have the trainer's image and the base models at the same paths. Where
ARTIFACT_ROOT is a directory they see it as well; with an object store each job brings what it works
on and stores what it makes (artifact_store/remote_job.py). Ray itself is not needed here. A job
survives its worker: the worker that takes the run over stops it before it starts a job of its own.
"""

import contextlib
import secrets
import time
from dataclasses import dataclass, field
from typing import Any

import httpx
import structlog
from django.conf import settings

from artifact_store.errors import StoreUnreachable
from artifact_store.objects import ObjectStore
from artifact_store.pieces import PieceReceiver
from artifact_store.remote_job import EVENTS
from feedback_app.artifacts import artifact_store
from feedback_app.training.launchers.base import (
    CANCELLED,
    DONE,
    END_SECONDS,
    OUTPUT,
    Job,
    LaunchError,
    output_end,
)
from feedback_app.training.launchers.child_process import ProcessLauncher
from feedback_app.training.launchers.ray_requests import STOP_SECONDS, body_of, place_of

log = structlog.get_logger(__name__)

ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
#: Ray's error type of a job that found no free node in time (15 minutes, a setting of the cluster).
NOT_PLACED = "JOB_SUPERVISOR_ACTOR_START_TIMEOUT"
#: The exit code of a job whose node was lost, so that Ray knows none: a crash, which is retried.
NODE_LOST = 1
#: How long the cluster may not answer before its job counts as lost, in seconds.
SILENCE_SECONDS = 60.0
POLL_SECONDS = 0.5
#: How often the events of a job are asked for, in seconds, where they come through the store.
FOLLOW_SECONDS = 2.0
#: How much of a refusal or of a job's message is kept, from its end, in characters.
MESSAGE_CHARACTERS = 1_000


@dataclass
class Submitted:
    """A job, the id of its submission, and what the cluster says of it."""

    job: Job
    submission: str
    written: int  # bytes of output in its directory before it started
    answered: float = field(default_factory=time.monotonic)
    stopped: bool = False
    message: str = ""
    events: PieceReceiver | None = None  # where they come through the store
    followed: float = 0.0

    def follow(self) -> None:
        """Bring new events here, from time to time."""
        if self.events is None or time.monotonic() - self.followed < FOLLOW_SECONDS:
            return
        self.followed = time.monotonic()
        # they are all in the tree that the job leaves
        with contextlib.suppress(StoreUnreachable):
            self.events.receive()


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
            # a launcher is not closed: no connection is left open between two questions
            limits=httpx.Limits(max_keepalive_connections=0),
        )
        self._store = artifact_store()
        self._jobs: dict[str, Submitted] = {}
        #: Runs the jobs that no other host could bring.
        self._here = ProcessLauncher()

    @property
    def elsewhere(self) -> bool:
        return self._store.remote

    def submit(self, job: Job) -> str:
        if self.elsewhere and not job.tree:
            return self._here.submit(job)
        try:
            self._stop_earlier(job)
            submission = self._start(job)
        except httpx.HTTPError as error:
            raise LaunchError(
                f"The Ray cluster at {settings.RAY_ADDRESS} did not take the job ({error})"
            ) from error
        self._jobs[job.name] = Submitted(
            job, submission, output_bytes(job), events=self._events(job, submission)
        )
        return job.name

    def poll(self, job_id: str) -> int | None:
        submitted = self._jobs.get(job_id)
        if submitted is None:
            return self._here.poll(job_id)
        try:
            found = self._request("GET", f"/api/jobs/{submitted.submission}")
            if found.get("error_type") == NOT_PLACED and not submitted.stopped:
                submitted.submission = self._start(submitted.job)
                submitted.events = self._events(submitted.job, submitted.submission)
                found = {"status": "PENDING"}
        except httpx.HTTPError as error:
            if time.monotonic() - submitted.answered < SILENCE_SECONDS:
                return None
            log.warning("ray_silent", job=submitted.submission, why=str(error))
            submitted.message = f"The Ray cluster does not answer ({error})."
            return NODE_LOST
        submitted.answered = time.monotonic()
        submitted.follow()
        return exit_code(submitted, found)

    def cancel(self, job_id: str) -> None:
        submitted = self._jobs.get(job_id)
        if submitted is None:
            self._here.cancel(job_id)
            return
        submitted.stopped = True
        # asked again by `end`
        with contextlib.suppress(httpx.HTTPError):
            self._stop(submitted.submission)

    def end(self, job_id: str, *, seconds: float = END_SECONDS) -> None:
        submitted = self._jobs.get(job_id)
        if submitted is None:
            self._here.end(job_id, seconds=seconds)
            return
        self._end(submitted.submission, seconds=max(seconds, STOP_SECONDS + END_SECONDS))
        events_remove(submitted.events)

    def logs(self, job_id: str) -> str:
        submitted = self._jobs.get(job_id)
        if submitted is None:
            return self._here.logs(job_id)
        output = output_end(submitted.job.directory)
        return f"{output}\n{submitted.message}" if submitted.message else output

    def _start(self, job: Job) -> str:
        """Submit the job and return the id of its submission. Raises httpx.HTTPError.

        The cluster refuses an id that any job of it ever had: of an evaluation's second look, or of
        another installation.
        """
        submission = f"{job.name}-{secrets.token_hex(6)}"
        body = body_of(job, submission, self._store)
        self._request("POST", "/api/jobs/", json=body)
        log.info(
            "trainer_started", job=submission, command=job.command, cluster=settings.RAY_ADDRESS
        )
        return submission

    def _events(self, job: Job, submission: str) -> PieceReceiver | None:
        """Return what brings the events of a job here; None where its directory has them."""
        if not isinstance(self._store, ObjectStore):
            return None
        return PieceReceiver(self._store.url, submission, job.directory / EVENTS)

    def _stop_earlier(self, job: Job) -> None:
        """End jobs of the same directory that an earlier attempt has left running, and delete
        events that it has left in the store."""
        place = place_of(job)
        for found in self._request("GET", "/api/jobs/"):
            if (found.get("metadata") or {}).items() >= place.items():
                if found["status"] not in ENDED:
                    self._end(found["submission_id"], seconds=STOP_SECONDS + END_SECONDS)
                events_remove(self._events(job, found["submission_id"]))

    def _end(self, submission: str, *, seconds: float) -> None:
        """Stop a job and wait until nothing of it runs any more, or the cluster is silent.

        A job that waits for a node is stopped as soon as it would start.
        """
        until = time.monotonic() + seconds
        asked = False
        while time.monotonic() < until:
            with contextlib.suppress(httpx.HTTPError):
                status = self._request("GET", f"/api/jobs/{submission}")["status"]
                if status in ENDED or (asked and status == "PENDING"):
                    return
                if not asked:
                    self._stop(submission)
                    asked = True
            time.sleep(POLL_SECONDS)
        log.warning("ray_job_not_ended", job=submission)

    def _stop(self, submission: str) -> None:
        self._request("POST", f"/api/jobs/{submission}/stop")

    def _request(self, method: str, path: str, **options: Any) -> Any:
        """Return the JSON of an answer. Raises httpx.HTTPError, with Ray's text for a refusal."""
        answer = self._http.request(method, path, **options)
        if answer.is_error:
            # a traceback, whose end says what was wrong
            raise httpx.HTTPStatusError(
                f"HTTP {answer.status_code}: {answer.text.strip()[-MESSAGE_CHARACTERS:]}",
                request=answer.request,
                response=answer,
            )
        return answer.json()


def events_remove(events: PieceReceiver | None) -> None:
    """Delete the events of a job that has ended from the store; best effort."""
    if events is not None:
        with contextlib.suppress(StoreUnreachable):
            events.remove()


def exit_code(submitted: Submitted, found: dict[str, Any]) -> int | None:
    """Return the exit code of a job from its description by Ray; None while it waits or runs.

    Keeps Ray's message where the trainer itself wrote nothing.
    """
    status, code = found["status"], found.get("driver_exit_code")
    if status == "PENDING" and submitted.stopped:
        return CANCELLED  # Ray stops it once it has a node
    if status not in ENDED:
        return None
    if status == "SUCCEEDED":
        return DONE
    if code is None or status == "STOPPED":
        code = CANCELLED if submitted.stopped else NODE_LOST
    if code == NODE_LOST or output_bytes(submitted.job) == submitted.written:
        submitted.message = message_of(found)
        log.warning("ray_job_failed", job=submitted.submission, why=submitted.message)
    elif settings.RAY_PROCESSES > 1:
        # of a process whose output is not in the run's directory
        _, _, submitted.message = message_of(found).partition("\n")
    return int(code)


def message_of(found: dict[str, Any]) -> str:
    """Return what a job printed outside of its directory, after a line of Ray's, or why Ray could
    not run it."""
    lines = str(found.get("message") or "").splitlines()
    # Ray's own line arrives before or after the output
    kept = [line for line in lines if not line.startswith("Running entrypoint")]
    return "\n".join(kept).strip()[-MESSAGE_CHARACTERS:]


def output_bytes(job: Job) -> int:
    """Return the size of the output in the job's directory."""
    path = job.directory / OUTPUT
    return path.stat().st_size if path.exists() else 0
