"""Heartbeats of claims continue while the work reports no progress."""

import datetime as dt
import threading
from pathlib import Path
from typing import Any

import pytest
from django.db import OperationalError, connection
from django.utils import timezone
from pytest_django import Settings

from feedback_app.accounts.models import User
from feedback_app.db.claims import ClaimLost
from feedback_app.db.heartbeats import Heartbeat, kept_alive
from feedback_app.feedback.imports import services
from feedback_app.feedback.imports.services import import_claim, import_execute
from feedback_app.feedback.models import ImportJob, Project
from feedback_app.training.launchers import child_process
from feedback_app.training.launchers.base import DONE
from feedback_app.training.launchers.child_process import ProcessLauncher
from feedback_app.training.models import Run
from feedback_app.training.runs.claims import RunClaim, run_claim
from feedback_app.training.runs.execution.jobs import job_run
from feedback_app.training.runs.execution.storage import RunFiles
from feedback_app.training.runs.services import run_request
from tests.engines import wait_until

pytestmark = pytest.mark.slow

STALE = 6.0  # the longest time without a heartbeat that the tests allow


@pytest.fixture
def claim(
    transactional_db: None, voted_project: Project, admin: User, settings: Settings
) -> RunClaim:
    settings.RUN_STALE_SECONDS = STALE
    claim = run_claim(run_request(project=voted_project, by=admin).pk)
    assert claim is not None
    return claim


def beat_time(claim: RunClaim) -> dt.datetime:
    found = Run.objects.get(pk=claim.row.pk).heartbeat_at
    assert found is not None
    return found


def test_claim_without_progress_is_kept_beyond_the_stale_limit(claim: RunClaim) -> None:
    began = timezone.now()
    with kept_alive(claim.heartbeat) as heartbeat:
        wait_until(
            lambda: beat_time(claim) > began + dt.timedelta(seconds=1.5 * STALE),
            what="beats for longer than the stale limit",
        )
        assert run_claim(claim.row.pk) is None, "a second worker must not get the claim"
        assert not heartbeat.lost
    assert "heartbeat" not in [thread.name for thread in threading.enumerate()]


def test_claim_taken_over_is_lost_permanently(claim: RunClaim) -> None:
    with kept_alive(claim.heartbeat) as heartbeat:
        Run.objects.filter(pk=claim.row.pk).update(attempt=claim.attempt + 1)
        wait_until(lambda: heartbeat.lost, what="the loss")
        Run.objects.filter(pk=claim.row.pk).update(attempt=claim.attempt)
    assert heartbeat.lost


def test_temporary_database_error_does_not_end_the_heartbeats(settings: Settings) -> None:
    settings.RUN_STALE_SECONDS = 0.12
    beats: list[Any] = []

    def beat() -> bool:
        beats.append(connection)
        if len(beats) < 3:
            raise OperationalError("database is locked")
        return True

    with kept_alive(beat) as heartbeat:
        wait_until(lambda: len(beats) >= 5, what="beats after the failures")
        assert not heartbeat.lost


def test_connection_of_the_heartbeats_is_closed(claim: RunClaim, settings: Settings) -> None:
    settings.RUN_STALE_SECONDS = 0.12
    used: list[Any] = []

    def beat() -> bool:
        found = claim.heartbeat()
        used.append(connection.connection)
        return found

    with kept_alive(beat):
        wait_until(lambda: used, what="a beat")
    assert used[0] is not None
    assert not [thread for thread in threading.enumerate() if thread.name == "heartbeat"]
    with pytest.raises(Exception, match="closed"):
        used[0].cursor()


def evaluated(claim: RunClaim, directory: Path, alive: Heartbeat) -> int:
    return job_run(
        claim,
        ProcessLauncher(),
        "evaluate",
        directory,
        alive=alive,
        files=RunFiles(claim, alive=alive),
    ).code


def test_trainer_without_events_keeps_its_run(
    claim: RunClaim, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The child sends no events and the polls write no heartbeat, so only the timer does."""
    began = timezone.now()
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\nwhile [ ! -e {tmp_path}/end ]; do sleep 0.1; done\n")
    python.chmod(0o755)
    monkeypatch.setattr(child_process.sys, "executable", str(python))
    codes: list[int] = []

    def work() -> None:
        try:
            with kept_alive(claim.heartbeat) as alive:
                codes.append(evaluated(claim, tmp_path, alive))
        finally:
            connection.close()

    worker = threading.Thread(target=work)
    worker.start()
    try:
        wait_until(
            lambda: beat_time(claim) > began + dt.timedelta(seconds=1.5 * STALE),
            what="beats for longer than the stale limit",
        )
        assert run_claim(claim.row.pk) is None
    finally:
        (tmp_path / "end").touch()
        worker.join(60)
    assert codes == [DONE]


def test_trainer_has_the_configured_niceness(
    claim: RunClaim, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    settings.TRAINER_NICE = 7
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/arguments\n')
    python.chmod(0o755)
    monkeypatch.setattr(child_process.sys, "executable", str(python))
    assert evaluated(claim, tmp_path, Heartbeat()) == DONE
    assert "--nice 7" in (tmp_path / "arguments").read_text()


def test_trainer_of_a_lost_run_is_ended(
    claim: RunClaim, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexec sleep 600\n")
    python.chmod(0o755)
    monkeypatch.setattr(child_process.sys, "executable", str(python))
    Run.objects.filter(pk=claim.row.pk).update(attempt=claim.attempt + 1)
    with kept_alive(claim.heartbeat) as alive, pytest.raises(ClaimLost):
        evaluated(claim, tmp_path, alive)


@pytest.mark.long
def test_import_with_a_long_transaction_keeps_its_claim(
    transactional_db: None,
    project: Project,
    admin: User,
    tmp_path: Path,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings.RUN_STALE_SECONDS = STALE
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "Why?", "completion": "Because.", "label": true}\n')
    job = ImportJob.objects.create(
        project=project, by=admin, name=path.name, path=str(path), status=ImportJob.Status.QUEUED
    )
    claim = import_claim(job.pk)
    assert claim is not None
    began = timezone.now()
    goes_on = threading.Event()
    real = services.open_rows

    def slowly(*args: Any, **options: Any) -> Any:
        goes_on.wait(120)
        return real(*args, **options)

    monkeypatch.setattr(services, "open_rows", slowly)

    def work() -> None:
        try:
            import_execute(claim)
        finally:
            connection.close()

    def beat() -> dt.datetime:
        job.refresh_from_db()
        assert job.heartbeat_at is not None
        return job.heartbeat_at

    worker = threading.Thread(target=work)
    worker.start()
    try:
        wait_until(lambda: beat() > began + dt.timedelta(seconds=1.5 * STALE), what="beats")
        assert import_claim(job.pk) is None
    finally:
        goes_on.set()
        worker.join(60)
    job.refresh_from_db()
    assert job.status == ImportJob.Status.DONE, job.error
