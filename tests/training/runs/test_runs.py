"""Runs are rows: claimed once, kept by heartbeats, ended once, and their events read once."""

import datetime as dt
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from feedback_app.accounts.models import AuditEvent, User
from feedback_app.db.heartbeats import Heartbeat
from feedback_app.feedback.models import Example, Project, Source, Verdict
from feedback_app.feedback.votes.services import vote_cast
from feedback_app.training.gate.report import misfits
from feedback_app.training.gate.services import gate_settings_save
from feedback_app.training.gate.settings import GateSettings
from feedback_app.training.launchers.base import CANCELLED, FAILED, REFUSED
from feedback_app.training.launchers.child_process import ProcessLauncher
from feedback_app.training.models import Adapter, Run, RunMetric, RunNote, SnapshotItem
from feedback_app.training.registry.services import adapter_discard, adapter_restore
from feedback_app.training.runs.claims import RunClaim, run_claim
from feedback_app.training.runs.events import METRIC_FIELDS, events_store, read_new_events
from feedback_app.training.runs.execution.jobs import JobEnd, job_run
from feedback_app.training.runs.execution.outcomes import settle
from feedback_app.training.runs.execution.storage import RunFiles
from feedback_app.training.runs.fit import fit_of_run
from feedback_app.training.runs.services import run_cancel, run_finish, run_request, run_resume
from feedback_app.training.runs.value_curve import value_curve
from feedback_app.training.schedules.services import schedule_set, schedules_run
from feedback_app.training.snapshots.files import snapshot_write
from feedback_app.web.errors import UserError
from tests.training.gate.reports import gate_report

pytestmark = pytest.mark.django_db

As = Callable[[User], Client]


@pytest.fixture
def run(voted_project: Project, admin: User) -> Run:
    return run_request(project=voted_project, by=admin)


@pytest.fixture
def claim(run: Run) -> RunClaim:
    claim = run_claim(run.pk)
    assert claim is not None
    return claim


def test_request_stores_a_snapshot_of_the_examples(
    run: Run, voted_project: Project, annotator: User
) -> None:
    frozen = run.snapshot.items.filter(desirable=True).count()
    completion = Example.objects.filter(desirable=False).first().completion
    vote_cast(completion=completion, verdict=Verdict.UP, by=annotator, source=Source.ANNOTATE)
    assert run.snapshot.items.count() == 60
    assert run.snapshot.items.filter(desirable=True).count() == frozen
    assert AuditEvent.objects.filter(action="run.request").count() == 1


def test_run_is_claimed_once(run: Run) -> None:
    assert run_claim(run.pk) is not None
    assert run_claim(run.pk) is None


def test_stale_run_is_taken_over_and_the_old_worker_stops_writing(
    run: Run, claim: RunClaim
) -> None:
    Run.objects.update(heartbeat_at=timezone.now() - dt.timedelta(hours=1))
    second = run_claim(run.pk)
    assert second is not None
    assert second.attempt == 2
    assert not claim.heartbeat()
    assert not events_store(claim, [{"type": "phase", "phase": "x", "done": 1, "total": 2}])
    assert second.heartbeat()


def test_queued_run_is_cancelled_at_once_and_can_be_resumed(run: Run, admin: User) -> None:
    run_cancel(run=run, by=admin)
    run.refresh_from_db()
    assert run.status == Run.Status.CANCELLED
    assert run_claim(run.pk) is None
    with pytest.raises(UserError, match="already ended"):
        run_cancel(run=run, by=admin)

    run_resume(run=run, by=admin)
    assert run_claim(run.pk) is not None


def test_running_run_is_asked_to_stop(run: Run, claim: RunClaim, admin: User) -> None:
    run_cancel(run=run, by=admin)
    assert claim.cancel_requested()
    run.refresh_from_db()
    assert run.status == Run.Status.RUNNING


def failed(run: Run, claim: RunClaim, code: int) -> None:
    """End the run as the trainer does that a KL brake has ended at its first probe."""
    run.directory.mkdir(parents=True)
    reason = "KL of 0.90 nats per token is over the brake of 0.5; no earlier adapter was under it"
    advice = "lower learning_rate or raise beta, and start a new run"
    event = {"type": "failed", "step": 2, "reason": reason, "advice": advice}
    (run.directory / "events.jsonl").write_text(json.dumps(event) + "\n")
    settle(claim, JobEnd(code))
    run.refresh_from_db()


def test_progress_names_the_phase_and_the_time_left_of_training_only(
    claim: RunClaim, admin: User, as_user: As
) -> None:
    client, page = as_user(admin), reverse("run-live", args=["bot", 1])
    figures = dict.fromkeys(METRIC_FIELDS, 0.5)
    start = {"examples": 30, "device": "cpu", "dtype": "float32", "lambda_d": 1, "lambda_u": 1}
    loading = {"type": "phase", "phase": "loading", "done": 1, "total": 1}

    def shown(*events: dict[str, Any]) -> str:
        assert events_store(claim, list(events))
        return " ".join(client.get(page).content.decode().split())

    assert "Loading the model · 1 of 1" in shown(loading)
    assert "of 15" not in shown({"type": "start", "total_steps": 15} | start)
    reference = {"type": "phase", "phase": "reference"}
    assert "with the base model <" in shown(reference | {"done": 0, "total": 0})
    assert "with the base model · 3 of 90" in shown(reference | {"done": 3, "total": 90})
    step = {"type": "step", "step": 14, "total_steps": 15, "eta_seconds": 1.2} | figures
    text = shown(step)
    assert "Training · 14 of 15" in text
    assert "about 1 second of training left" in text
    assert "training left" not in shown(step | {"step": 15, "eta_seconds": 0.0})
    text = shown(step, {"type": "phase", "phase": "saving", "done": 0, "total": 1})
    assert "Saving the adapter" in text
    assert "training left" not in text


def test_run_that_would_fail_again_is_not_resumed(
    run: Run, claim: RunClaim, admin: User, settings: Any, tmp_path: Path, as_user: As
) -> None:
    settings.ARTIFACT_ROOT = tmp_path
    failed(run, claim, FAILED)
    assert "at step 2. Lower Learning rate or raise β, and start a new run" in run.error
    with pytest.raises(UserError, match="would fail again with the same settings"):
        run_resume(run=run, by=admin)

    page = as_user(admin).get(reverse("run", args=["bot", 1])).content.decode()
    assert "Resume" not in page
    assert "over the brake of 0.5" in page
    assert f"{reverse('runs', args=['bot'])}?like=1" in page


def test_resumed_run_still_shows_why_it_failed(
    run: Run, claim: RunClaim, admin: User, settings: Any, tmp_path: Path, as_user: As
) -> None:
    settings.ARTIFACT_ROOT = tmp_path
    failed(run, claim, REFUSED)
    run_resume(run=run, by=admin)
    page = as_user(admin).get(reverse("run", args=["bot", 1])).content.decode()
    assert "over the brake of 0.5" in page
    assert "Resumed" in page


@pytest.mark.slow
def test_run_with_a_stop_request_starts_no_process(
    run: Run, claim: RunClaim, admin: User, tmp_path: Path
) -> None:
    run_cancel(run=run, by=admin)
    ended = job_run(
        claim,
        ProcessLauncher(),
        "evaluate",
        tmp_path,
        alive=Heartbeat(),
        files=RunFiles(claim, alive=Heartbeat()),
    )
    assert ended.code == CANCELLED
    assert not list(tmp_path.iterdir()), "a process was started"


@pytest.mark.parametrize("code", [CANCELLED, -signal.SIGTERM], ids=["cancelled", "SIGTERM"])
@pytest.mark.parametrize(
    ("asked", "status"), [(True, Run.Status.CANCELLED), (False, Run.Status.QUEUED)]
)
def test_stopped_trainer_ends_the_run_as_cancelled(
    run: Run, claim: RunClaim, admin: User, code: int, asked: bool, status: str
) -> None:
    if asked:
        run_cancel(run=run, by=admin)
    settle(claim, JobEnd(code))
    run.refresh_from_db()
    assert run.status == status


def test_finish_registers_one_adapter_and_marks_each_example(run: Run, claim: RunClaim) -> None:
    fit = {item.completion_id: (0.5, 0.1) for item in run.snapshot.items.filter(split="train")}
    arguments: dict[str, Any] = {
        "path": "adapters/bot@1",
        "sha256": "0" * 64,
        "report": gate_report("bot@1"),
        "fit": fit,
    }
    adapter = run_finish(claim=claim, **arguments)
    assert adapter is not None
    assert adapter.name == "bot@1"
    assert adapter.gate_won
    assert run_finish(claim=claim, **arguments) is None, "a second finish registers nothing"
    assert Adapter.objects.count() == 1
    assert Example.objects.filter(split="train", used_in_run=1).count() == len(fit)
    assert not Example.objects.exclude(split="train").filter(used_in_run=1).exists()
    assert SnapshotItem.objects.filter(reward=0.5).count() == len(fit)
    unsure = dict(run.project.completions.filter(pk__in=fit).values_list("pk", "unsure"))
    assert set(unsure.values()) == {0.4}, "the queue orders by the run's certainty"
    assert not run.project.completions.exclude(pk__in=fit).filter(unsure__isnull=False).exists()


def test_fit_of_test_items_is_neither_stored_nor_shown(run: Run, claim: RunClaim) -> None:
    # worse than every training example: it would be the first misfit, and first in the queue
    held = run.snapshot.items.exclude(split="train")
    fit = {item.completion_id: (0.5, 0.1) for item in run.snapshot.items.filter(split="train")}
    trained = set(fit)
    fit |= {item.completion_id: (-9.0 if item.desirable else 9.0, 8.9) for item in held}
    assert set(held.values_list("split", flat=True)) == {"validation", "test"}

    run_finish(
        claim=claim, path="adapters/bot@1", sha256="0" * 64, report=gate_report("bot@1"), fit=fit
    )

    run.refresh_from_db()
    shown = fit_of_run(run)
    assert shown.total == len(trained)
    assert {misfit.item.completion_id for misfit in misfits(run, shown)} <= trained
    curve = value_curve(run, shown)
    assert curve is not None
    assert curve.total == len(curve.points) == len(trained)
    assert not held.filter(reward__isnull=False).exists()
    unsure = run.project.completions.filter(unsure__isnull=False)
    assert set(unsure.values_list("pk", flat=True)) == trained


@pytest.mark.parametrize("name", ["validation_loss", "heldout_loss"])
def test_probe_is_noted_also_under_the_name_of_older_event_files(
    claim: RunClaim, name: str
) -> None:
    event = {"type": "probe", "step": 3, "kl_per_token": 0.1, "answers": 8, name: 0.25}
    assert events_store(claim, [event])
    assert "loss on validation examples 0.2500" in RunNote.objects.get().text


def test_gate_refuses_a_worse_model(claim: RunClaim) -> None:
    report = gate_report("bot@1", repeats=0.7)
    adapter = run_finish(claim=claim, path="p", sha256="0", report=report, fit={})
    assert adapter is not None
    assert not adapter.gate_won
    assert adapter.gate_outcome == "failed"
    (lost,) = [rule for rule in adapter.gate["rules"] if rule["outcome"] != "passed"]
    assert lost["label"] == "Repetition"
    note = RunNote.objects.filter(run=claim.row).latest("pk")
    assert "It failed the gate. Repetition: beyond its margin" in note.text


def test_gate_without_enough_prompts_decides_nothing(claim: RunClaim) -> None:
    report = gate_report("bot@1", prompts=6)
    adapter = run_finish(claim=claim, path="p", sha256="0", report=report, fit={})
    assert adapter is not None
    assert (adapter.gate_won, adapter.gate_outcome) == (False, "undecided")


def test_gate_compares_with_the_live_version(claim: RunClaim) -> None:
    report = gate_report("bot@1", live="bot@0", up=0.5, prompts=300)
    adapter = run_finish(claim=claim, path="p", sha256="0", report=report, fit={})
    assert adapter is not None
    assert adapter.gate["opponent"] == "bot@0"
    assert not adapter.gate_won


def test_gate_uses_the_rules_of_the_project(claim: RunClaim, project: Project, admin: User) -> None:
    wide = GateSettings(margins={"repetition": 0.9})
    gate_settings_save(project=project, settings=wide, by=admin)
    report = gate_report("bot@1", repeats=0.7)
    adapter = run_finish(claim=claim, path="p", sha256="0", report=report, fit={})
    assert adapter is not None
    assert adapter.gate_won
    assert adapter.gate["settings"]["margins"] == {"repetition": 0.9}
    assert [rule["key"] for rule in adapter.gate["rules"]] == ["up", "repetition"]


def test_live_adapter_cannot_be_discarded(claim: RunClaim, admin: User, project: Project) -> None:
    adapter = run_finish(claim=claim, path="p", sha256="0", report=gate_report("bot@1"), fit={})
    assert adapter is not None
    Project.objects.update(live_version="bot@1")
    adapter.refresh_from_db()
    with pytest.raises(UserError, match="is live"):
        adapter_discard(adapter=adapter, by=admin)

    Project.objects.update(live_version="base")
    adapter = Adapter.objects.get()
    adapter_discard(adapter=adapter, by=admin)
    assert not Adapter.objects.usable().exists()
    adapter_restore(adapter=adapter, by=admin)
    assert Adapter.objects.usable().exists()


# -- events


def step(number: int, **extra: Any) -> dict[str, Any]:
    values = {"loss": 0.5, "kl": 0.0, "kl_unclamped": -0.1, "learning_rate": 1e-4}
    more = {"grad_norm": 1.0, "seconds": 2.0, "completion_tokens": 40.0}
    return {
        "type": "step",
        "step": number,
        "total_steps": 10,
        "reward_desirable": None,
        "reward_undesirable": -0.2,
        "eta_seconds": 12.0,
        **values,
        **more,
        **extra,
    }


def test_events_become_curves_progress_and_log(claim: RunClaim, tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    lines = [json.dumps(step(1)), json.dumps({"type": "warning", "message": "both rewards fall"})]
    path.write_text("\n".join(lines) + "\n" + '{"type": "st')
    events, offset = read_new_events(path, 0)
    assert len(events) == 2
    assert events_store(claim, events, events_offset=offset)

    # a resumed trainer repeats a step: the newer line replaces it; a partial line is read once
    # it is complete
    path.write_text(path.read_text() + 'ep"}\n' + json.dumps(step(1, loss=0.25)) + "\n")
    events, _ = read_new_events(path, offset)
    assert events_store(claim, events[1:], events_offset=offset)

    assert RunMetric.objects.get().loss == 0.25
    assert RunMetric.objects.get().reward_desirable is None
    note = RunNote.objects.get()
    assert (note.level, note.text) == ("warning", "both rewards fall")
    claim.row.refresh_from_db()
    assert claim.row.percent == 10
    assert claim.row.eta_seconds == 12.0


# -- snapshots as files


def test_snapshot_file_is_trl_unpaired_with_the_served_context(run: Run, tmp_path: Path) -> None:
    snapshot_write(run.snapshot, tmp_path)
    first = (tmp_path / "examples.jsonl").read_bytes()
    snapshot_write(run.snapshot, tmp_path)
    assert (tmp_path / "examples.jsonl").read_bytes() == first

    rows = [json.loads(line) for line in first.splitlines()]
    validation = list(map(json.loads, (tmp_path / "validation.jsonl").read_text().splitlines()))
    test = run.snapshot.items.filter(split="test").count()
    assert len(rows) + len(validation) + test == 60
    assert {path.name for path in tmp_path.iterdir()} == {"examples.jsonl", "validation.jsonl"}
    row = rows[0]
    assert row["prompt"][0] == {"role": "system", "content": "Be brief."}
    assert row["prompt"][-1]["role"] == "user"
    assert row["completion"][0]["role"] == "assistant"
    assert isinstance(row["label"], bool)
    prompts = {json.dumps(r["prompt"]) for r in rows}
    assert not prompts & {json.dumps(r["prompt"]) for r in validation}


# -- the schedule


def test_schedule_starts_one_run_when_enough_examples_are_new(
    voted_project: Project, admin: User
) -> None:
    schedule_set(
        project=voted_project,
        by=admin,
        enabled=True,
        min_new_examples=60,
        min_hours=0,
        auto_release=True,
    )
    assert [run.trigger for run in schedules_run()] == ["schedule"]
    assert schedules_run() == [], "a second tick starts nothing"
    assert Run.objects.get().auto_release


def test_schedule_waits_for_examples_and_hours(
    voted_project: Project, admin: User, claim: RunClaim, annotator: User
) -> None:
    schedule_set(
        project=voted_project,
        by=admin,
        enabled=True,
        min_new_examples=1,
        min_hours=6,
        auto_release=False,
    )
    claim.update(status=Run.Status.FAILED)
    vote = Example.objects.first()
    Example.objects.filter(pk=vote.pk).update(created_at=timezone.now() + dt.timedelta(minutes=1))
    now = timezone.now()
    assert schedules_run(now=now + dt.timedelta(hours=5)) == []
    assert len(schedules_run(now=now + dt.timedelta(hours=7))) == 1


def test_run_gives_the_reason_for_its_precision(
    claim: RunClaim, admin: User, as_user: Callable[[User], Client]
) -> None:
    start = {
        "type": "start",
        "total_steps": 4,
        "examples": 48,
        "device": "cpu",
        "dtype": "float32",
        "precision": "float32: this CPU has no bfloat16 units",
        "lambda_d": 1.0,
        "lambda_u": 1.0,
    }
    assert events_store(claim, [start])
    assert "on cpu in float32: this CPU has no bfloat16 units" in RunNote.objects.get().text
    page = as_user(admin).get(f"/projects/bot/runs/{claim.row.number}/")
    assert "cpu, float32: this CPU has no bfloat16 units" in page.content.decode()
