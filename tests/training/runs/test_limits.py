"""The cap on the time and cost of a run."""

import datetime as dt
from pathlib import Path
from typing import Literal

import pytest
from django.utils import timezone
from pytest_django import Settings

from feedback_app.accounts.models import User
from feedback_app.feedback.models import Project
from feedback_app.training.launchers.base import CANCELLED, DONE, END_SECONDS, Job, LaunchError
from feedback_app.training.models import Run
from feedback_app.training.runs.claims import run_claim
from feedback_app.training.runs.config import RunConfig
from feedback_app.training.runs.execution import jobs
from feedback_app.training.runs.execution.sequence import MAX_CLAIMS, run_execute
from feedback_app.training.runs.limits import RunLimit, run_limit
from feedback_app.training.runs.services import run_request, run_resume

pytestmark = pytest.mark.django_db


@pytest.fixture
def run(voted_project: Project, admin: User, settings: Settings, tmp_path: Path) -> Run:
    settings.ARTIFACT_ROOT = tmp_path
    return run_request(project=voted_project, by=admin, config=RunConfig(epochs=1))


class CheckpointingLauncher:
    """A launcher whose job runs until it is cancelled, and then ends as after a checkpoint."""

    elsewhere = False

    def __init__(self, end: Literal[0, 3] = CANCELLED) -> None:
        self.cancelled = False
        self._end = end

    def submit(self, job: Job) -> str:
        return job.name

    def poll(self, job_id: str) -> int | None:
        return self._end if self.cancelled else None

    def cancel(self, job_id: str) -> None:
        self.cancelled = True

    def end(self, job_id: str, *, seconds: float = END_SECONDS) -> None:
        assert self.cancelled

    def logs(self, job_id: str) -> str:
        return ""


def test_smallest_limit_applies(run: Run, settings: Settings) -> None:
    assert run_limit(run) is None
    settings.RUN_MAX_HOURS = 12.0
    assert run_limit(run) == RunLimit(12, "RUN_MAX_HOURS")
    settings.RUN_MAX_COST, settings.WORKER_HOUR_PRICE = 20.0, 2.5
    assert run_limit(run) == RunLimit(8, "RUN_MAX_COST (20)")
    run.project.run_hours = 3
    assert run_limit(run) == RunLimit(3, "the limit of its project")


def test_limit_counts_from_the_first_claim_since_the_run_was_queued(run: Run) -> None:
    limit = RunLimit(2, "x")
    now = timezone.now()
    assert not limit.reached(run, now)
    run.started_at = now - dt.timedelta(hours=1.9)
    assert not limit.reached(run, now)
    run.started_at = now - dt.timedelta(hours=2.1)
    assert limit.reached(run, now)


def test_run_beyond_its_limit_ends_after_a_checkpoint_with_the_reason_and_can_be_resumed(
    run: Run, admin: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "POLL_SECONDS", 0.01)
    Project.objects.filter(pk=run.project_id).update(run_hours=1)
    Run.objects.filter(pk=run.pk).update(started_at=timezone.now() - dt.timedelta(hours=2))
    claim = run_claim(run.pk)
    assert claim is not None
    launcher = CheckpointingLauncher()

    run_execute(claim, launcher)

    run.refresh_from_db()
    assert launcher.cancelled
    assert run.status == Run.Status.FAILED
    assert run.error.startswith(
        "The run has reached the limit of its project, 1 hours, and was ended after a checkpoint."
    )
    run_resume(run=run, by=admin)
    run.refresh_from_db()
    assert (run.status, run.started_at) == (Run.Status.QUEUED, None)


def test_training_that_ends_at_the_limit_is_not_lost(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "POLL_SECONDS", 0.01)
    Project.objects.filter(pk=run.project_id).update(run_hours=1)
    Run.objects.filter(pk=run.pk).update(started_at=timezone.now() - dt.timedelta(hours=2))
    claim = run_claim(run.pk)
    assert claim is not None
    with pytest.raises(FileNotFoundError):  # goes on to the evaluation, for which there is nothing
        from feedback_app.db.heartbeats import Heartbeat
        from feedback_app.training.runs.execution.sequence import train_and_evaluate

        train_and_evaluate(claim, CheckpointingLauncher(DONE), Heartbeat())


class RefusingLauncher(CheckpointingLauncher):
    """A launcher that starts nothing."""

    def submit(self, job: Job) -> str:
        raise LaunchError("There is no device")


def test_run_that_was_claimed_too_often_can_be_resumed(run: Run, admin: User) -> None:
    errors = []
    for _ in range(2):
        Run.objects.filter(pk=run.pk).update(attempt=MAX_CLAIMS)
        claim = run_claim(run.pk)
        assert claim is not None
        run_execute(claim, RefusingLauncher())
        run.refresh_from_db()
        errors.append(run.error.split(".")[0])
        run_resume(run=run, by=admin)
    assert errors == [
        "21 workers died or were stopped while executing this run",
        "There is no device",
    ]
