"""The request that starts a job of a Ray cluster, and what a node then runs."""

import os
import shlex
from collections.abc import Sequence
from typing import Any

from django.conf import settings

from artifact_store.base import ArtifactStore
from artifact_store.objects import ObjectStore
from artifact_store.remote_job import RemoteJob, command_of
from feedback_app.training.launchers.base import OUTPUT, REFUSED, Job

#: Seconds between SIGTERM and SIGKILL when Ray stops a job: the trainer writes a checkpoint.
STOP_SECONDS = 60


def command_in_place(job: Job, command: Sequence[str]) -> str:
    """Return what runs a command on a node that sees the job's directory."""
    directory, output = (shlex.quote(str(path)) for path in (job.directory, job.directory / OUTPUT))
    missing = shlex.quote(
        f"This node of the Ray cluster has no {job.directory}: mount ARTIFACT_ROOT at the same path"
    )
    return (
        f"[ -d {directory} ] || {{ echo {missing}; exit {REFUSED}; }}; "
        # the shell is replaced, so that signals reach the trainer
        f"exec {shlex.join(command)} >> {output} 2>&1"
    )


def command_with_store(
    job: Job, submission: str, store: ObjectStore, command: Sequence[str]
) -> str:
    """Return what runs a command on a node that has the artifact store only."""
    remote = RemoteJob(store, job.tree, job.generation, job.directory, submission, job.reads)
    return "exec " + shlex.join(command_of(remote, command, python=settings.RAY_PYTHON))


def command_in_processes(command: Sequence[str], *, elsewhere: bool) -> str:
    """Return what runs a command in RAY_PROCESSES processes, as one run.

    Where nodes have the artifact store only, each process needs a node of its own: two would bring
    the same tree to the same place.
    """
    options = [
        *("--processes", str(settings.RAY_PROCESSES)),
        *("--cpus", str(settings.RAY_CPUS), "--gpus", str(settings.RAY_GPUS)),
        *(["--spread"] if elsewhere else []),
    ]
    module = "trainer.distributed.ray_processes"
    return "exec " + shlex.join([settings.RAY_PYTHON, "-m", module, *options, "--", *command])


def place_of(job: Job) -> dict[str, str]:
    """Return what tells the jobs of a directory from others, also of other installations, whose
    hosts may have the same paths."""
    return {"directory": str(job.directory), "store": settings.ARTIFACT_URL}


def body_of(job: Job, submission: str, store: ArtifactStore) -> dict[str, Any]:
    """Return the request that starts a job: its command, and what it takes of a node."""
    command = [settings.RAY_PYTHON, "-m", "trainer", *job.arguments, "--stop-with-parent"]
    if isinstance(store, ObjectStore):
        entrypoint = command_with_store(job, submission, store, command)
    else:
        entrypoint = command_in_place(job, command)
    several = job.command == "train" and settings.RAY_PROCESSES > 1
    if several:
        shell = ["sh", "-c", entrypoint]
        entrypoint = command_in_processes(shell, elsewhere=isinstance(store, ObjectStore))
    return {
        "submission_id": submission,
        "entrypoint": entrypoint,
        # the processes reserve what they take themselves
        "entrypoint_num_cpus": 0 if several else settings.RAY_CPUS,
        "entrypoint_num_gpus": 0 if several else settings.RAY_GPUS,
        "metadata": place_of(job),
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
