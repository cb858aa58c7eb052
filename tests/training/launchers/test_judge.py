"""The judge model's part of a run: cancelled, taken over, down, and a whole run with it."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.db import connection
from pytest_django import Settings

from feedback_app.accounts.models import User
from feedback_app.db.claims import ClaimLost
from feedback_app.db.heartbeats import Heartbeat, kept_alive
from feedback_app.feedback.models import Project
from feedback_app.training.gate.evaluation import evaluation_read
from feedback_app.training.gate.judge import interview
from feedback_app.training.gate.judge.services import judge_save
from feedback_app.training.gate.services import gate_settings_save
from feedback_app.training.gate.settings import GateSettings
from feedback_app.training.launchers.child_process import ProcessLauncher
from feedback_app.training.models import Run, RunNote
from feedback_app.training.runs.claims import RunClaim, run_claim
from feedback_app.training.runs.config import RunConfig
from feedback_app.training.runs.execution.sequence import judge_asked, run_execute
from feedback_app.training.runs.services import run_request
from tests.engines import wait_until
from tests.training.gate.judge.server import JudgeServer, Reply, judging, kind
from tests.training.gate.judge.world import report_write, votes_for_good_answers

pytestmark = pytest.mark.slow

SETTINGS = GateSettings(primary="judge")


@pytest.fixture
def server(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[JudgeServer]:
    settings.JUDGE_NETWORKS = ["127.0.0.0/8"]
    monkeypatch.setattr(interview, "PAUSES", (0.01, 0.02))
    with judging() as found:
        found.behaviour = kind
        yield found


@pytest.fixture
def claim(
    project: Project,
    annotator: User,
    admin: User,
    server: JudgeServer,
    settings: Settings,
    tmp_path: Path,
) -> RunClaim:
    """A run in its evaluation, whose project has a judge."""
    settings.ARTIFACT_ROOT, settings.MODELS_ROOT = tmp_path / "artifacts", tmp_path / "models"
    project.max_tokens = 8
    project.save()
    votes_for_good_answers(project, annotator)
    judge_save(project=project, url=server.url, model="judge-1", api_key="", by=admin)
    gate_settings_save(project=project, settings=SETTINGS, by=admin)
    config = RunConfig(epochs=1, batch_size=8, kl_brake=10)
    claim = run_claim(run_request(project=project, by=admin, config=config).pk)
    assert claim is not None
    return claim


@pytest.mark.django_db
def test_judge_is_asked_and_progress_is_shown(claim: RunClaim, server: JudgeServer) -> None:
    report_write(claim.row)
    assert judge_asked(claim, SETTINGS, seconds=60, alive=Heartbeat())
    assert evaluation_read(claim.row)["judge"]["kappa"] == 1
    run = Run.objects.get()
    assert run.phase == "asking the judge"
    assert run.progress_total == 120
    assert not RunNote.objects.filter(level=RunNote.Level.WARNING).exists()


@pytest.mark.django_db
def test_judge_that_is_down_is_noted_and_ends_no_run(claim: RunClaim, server: JudgeServer) -> None:
    report_write(claim.row)
    server.behaviour = lambda asked: Reply(status=503)
    assert judge_asked(claim, SETTINGS, seconds=60, alive=Heartbeat())
    note = RunNote.objects.get(level=RunNote.Level.WARNING)
    assert note.text == "Judge model: The server answered 503."


@pytest.mark.django_db
def test_cancelled_run_stops_asking(claim: RunClaim, server: JudgeServer) -> None:
    report_write(claim.row)
    Run.objects.update(cancel_requested=True)
    server.behaviour = lambda asked: Reply(silent=True)
    assert not judge_asked(claim, SETTINGS, seconds=600, alive=Heartbeat())
    assert len(server.asked) <= interview.AT_ONCE


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_claim_is_kept_while_a_judge_is_slow_and_given_up_when_it_is_lost(
    claim: RunClaim, server: JudgeServer, settings: Settings
) -> None:
    settings.RUN_STALE_SECONDS = 3.0
    report_write(claim.row)
    server.behaviour = lambda asked: Reply(silent=True)
    beat = Run.objects.get().heartbeat_at
    kept = threading.Event()

    def takeover() -> None:
        wait_until(lambda: Run.objects.get().heartbeat_at != beat, what="a heartbeat")
        kept.set()
        Run.objects.update(attempt=claim.attempt + 1)
        connection.close()

    thread = threading.Thread(target=takeover)
    with kept_alive(claim.heartbeat) as alive:
        thread.start()
        with pytest.raises(ClaimLost):
            judge_asked(claim, SETTINGS, seconds=600, alive=alive)
    thread.join()
    assert kept.is_set()


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.django_db
def test_whole_run_is_decided_by_the_judge(claim: RunClaim, server: JudgeServer) -> None:
    pytest.importorskip("torch")
    from tests.tiny import make_tiny_model

    make_tiny_model(Path(claim.row.directory).parents[2] / "models" / claim.row.project.base_model)
    run_execute(claim, ProcessLauncher())

    run = Run.objects.get()
    assert run.status == Run.Status.SUCCEEDED, run.error
    rule = run.adapter.gate["rules"][0]
    judged = run.adapter.report["judge"]
    assert (rule["key"], rule["primary"], judged["kappa"]) == ("judge", True, 1)
    assert set(judged["prompts"]) <= {entry["id"] for entry in run.adapter.report["answers"]}
    assert len(judged["prompts"]) == rule["n"] > 0
    # the first answers of both versions to each prompt were compared
    compared = {frozenset(asked.answers) for asked in server.asked}
    for entry in run.adapter.report["answers"]:
        texts = frozenset(answers[0]["text"] for answers in entry["answers"].values())
        assert texts in compared or len(texts) == 1
