"""A trainer whose disk is full: its run fails with the reason, and resumes when there is space."""

from pathlib import Path

import pytest
from pytest_django import Settings

from feedback_app.accounts.models import User
from feedback_app.db.heartbeats import Heartbeat
from feedback_app.feedback.models import Project
from feedback_app.training.launchers.base import DONE
from feedback_app.training.launchers.child_process import ProcessLauncher
from feedback_app.training.models import Run, RunNote
from feedback_app.training.runs.claims import run_claim
from feedback_app.training.runs.execution.jobs import job_run
from feedback_app.training.runs.execution.sequence import run_execute
from feedback_app.training.runs.execution.storage import RunFiles
from feedback_app.training.runs.services import run_request, run_resume

pytestmark = [pytest.mark.django_db, pytest.mark.slow, pytest.mark.long]


def test_full_disk_fails_a_run_at_once_and_the_run_can_be_resumed(
    voted_project: Project, admin: User, settings: Settings, tmp_path: Path
) -> None:
    pytest.importorskip("torch")
    from tests.tiny import make_tiny_model

    settings.MODELS_ROOT, settings.ARTIFACT_ROOT = tmp_path / "models", tmp_path / "artifacts"
    make_tiny_model(settings.MODELS_ROOT / voted_project.base_model)
    run = run_request(project=voted_project, by=admin)
    # the trainer writes its list of missing reference values to a full disk
    full = run.directory / "checkpoints" / "reference-0.partial"
    full.parent.mkdir(parents=True)
    full.symlink_to("/dev/full")
    claim = run_claim(run.pk)
    assert claim is not None
    run_execute(claim, ProcessLauncher())
    run.refresh_from_db()
    assert (run.status, run.attempt) == (Run.Status.FAILED, 1)
    assert f"could not write under {settings.ARTIFACT_ROOT}" in run.error
    assert "resume the run" in run.error
    assert RunNote.objects.filter(run=run, text__contains="No space left on device").exists()

    full.unlink()
    run_resume(run=run, by=admin)
    again = run_claim(run.pk)
    assert again is not None
    ended = job_run(
        again,
        ProcessLauncher(),
        "train",
        run.directory,
        alive=Heartbeat(),
        files=RunFiles(again, alive=Heartbeat()),
    )
    assert ended.code == DONE
