"""The sequence of a run: train, evaluate, ask the judge, decide the gate, register the adapter.

It knows launchers by their protocol only (training/launchers/base.py). No transaction spans a job.
"""

import json
import time
from typing import Literal

import structlog

from feedback_app.db.claims import ClaimLost
from feedback_app.db.heartbeats import Heartbeat
from feedback_app.training.gate.evaluation import (
    evaluation_read,
    evaluation_write,
    first_look,
    prompts_available,
    second_look,
)
from feedback_app.training.gate.judge.evaluation import judge_evaluate
from feedback_app.training.gate.judge.interview import Interrupted
from feedback_app.training.gate.services import gate_of_report, gate_settings
from feedback_app.training.gate.settings import GateSettings
from feedback_app.training.launchers.base import CANCELLED, DONE, Launcher, LaunchError
from feedback_app.training.models import Run, RunNote
from feedback_app.training.registry.files import BadAdapter, adapter_publish
from feedback_app.training.runs import services
from feedback_app.training.runs.claims import RunClaim
from feedback_app.training.runs.execution.inputs import imported_remove, model_path, prepare
from feedback_app.training.runs.execution.jobs import JobEnd, job_run
from feedback_app.training.runs.execution.outcomes import settle
from feedback_app.training.runs.execution.storage import RunFiles
from feedback_app.training.sweeps.stopping import trial_trained
from feedback_app.web.text.plurals import number_of

log = structlog.get_logger(__name__)

MAX_CLAIMS = 20  # of workers that stop or die


class RunHopeless(Exception):
    """The run failed in a way that a retry would repeat."""


def run_execute(claim: RunClaim, launcher: Launcher) -> None:
    """Execute a claimed run: train, evaluate, register. Safe to repeat at any point."""
    run = claim.row
    try:
        with claim.kept_alive() as heartbeat:
            train_and_evaluate(claim, launcher, heartbeat)
    except ClaimLost:
        log.warning("claim_lost", run=run.pk, attempt=claim.attempt)
    except (OSError, BadAdapter, LaunchError, RunHopeless) as error:
        services.run_end(
            claim=claim,
            status=Run.Status.FAILED,
            error=f"{error}. Earlier adapters are intact; fix the cause and resume the run.",
        )


def train_and_evaluate(claim: RunClaim, launcher: Launcher, heartbeat: Heartbeat) -> None:
    """Run both jobs and end the run. Raises what run_execute catches."""
    run = claim.row
    # as many again after each time that a person has resumed it
    resumed = run.notes.filter(text=services.RESUMED).count()
    if claim.attempt > MAX_CLAIMS * (1 + resumed):
        raise RunHopeless(f"{claim.attempt} workers died or were stopped while executing this run")
    files = RunFiles(claim, alive=heartbeat)
    files.begin()
    prepare(run)
    # returns at once if an earlier attempt has finished training
    first: Literal["train", "adopt"] = "train" if run.trains else "adopt"
    ended = job_run(claim, launcher, first, run.directory, alive=heartbeat, files=files)
    files.push()
    if ended.code == DONE and not run.evaluates:
        trial_trained(claim)
        files.push_finished()
        return
    if ended.code == DONE:
        claim.heartbeat(status=Run.Status.EVALUATING, phase="", eta_seconds=None)
        ended = evaluate(claim, launcher, heartbeat, files)
        if ended.code == DONE:
            finish(claim)
            if not run.trains:
                imported_remove(run)
            files.push_finished()
            return
    settle(claim, ended)


def evaluate(claim: RunClaim, launcher: Launcher, heartbeat: Heartbeat, files: RunFiles) -> JobEnd:
    """Compare the new adapter with live and base; look a second time, at more answers, if the first
    look decides too little. Returns how the last job ended.

    Call it after training: these are the first files with test examples.
    """
    run = claim.row
    settings = gate_settings(run.project)
    base_model = model_path(run.project.base_model)
    look = first_look(settings)
    ended, seconds, judge_seconds = JobEnd(DONE), 0.0, 60 * settings.judge_minutes
    for last in (False, True):
        directory = evaluation_write(run, look, base_model=base_model)
        ended = job_run(claim, launcher, "evaluate", directory, alive=heartbeat, files=files)
        if ended.code != DONE:
            break
        if settings.primary == "judge":
            judged = time.monotonic()
            if not judge_asked(claim, settings, seconds=judge_seconds, alive=heartbeat):
                return JobEnd(CANCELLED)
            judge_seconds -= time.monotonic() - judged
        if last:
            break
        report = evaluation_read(run)
        seconds += float(report["seconds"])
        result = gate_of_report(report, settings, candidate=run.project.adapter_name(run.number))
        available = prompts_available(run.project)
        more = second_look(look, result, settings, seconds=seconds, available=available)
        if more is None:
            break
        text = (
            f"{number_of(len(report['answers']), 'prompt')} with "
            f"{number_of(look.answers, 'answer')} each leave the gate undecided: sampling "
            f"{number_of(more.answers, 'answer')} to each of {number_of(more.prompts, 'prompt')}"
        )
        if more.kl > look.kl:
            text += f", and {more.kl} for the distance to the base"
        services.run_note(run=run, text=f"{text}.")
        look = more
    return ended


def judge_asked(
    claim: RunClaim, settings: GateSettings, *, seconds: float, alive: Heartbeat
) -> bool:
    """Have the project's judge model compare the answers; False if the run was cancelled.

    A judge that does not answer ends no run: the gate is then undecided. Raises ClaimLost.
    """
    shown = -1

    def progress(done: int, total: int) -> None:
        nonlocal shown
        if done != shown:
            shown = done
            claim.heartbeat(phase="asking the judge", progress_done=done, progress_total=total)

    try:
        problem = judge_evaluate(
            run=claim.row,
            settings=settings,
            seconds=seconds,
            stopped=lambda: alive.lost or claim.cancel_requested(),
            progress=progress,
        )
    except Interrupted:
        if alive.lost:
            raise ClaimLost from None
        return False
    if problem:
        services.run_note(
            run=claim.row, text=f"Judge model: {problem}.", level=RunNote.Level.WARNING
        )
    return True


def finish(claim: RunClaim) -> None:
    """Publish the adapter's files, then register it with its gate report."""
    run = claim.row
    name = run.project.adapter_name(run.number)
    report = evaluation_read(run)
    fit = {}
    for line in (run.directory / "fit.jsonl").read_text().splitlines():
        row = json.loads(line)
        fit[int(row["id"])] = (float(row["reward"]), float(row["z0"]))
    path, sha256 = adapter_publish(run.directory / "adapter", name=name)
    adapter = services.run_finish(claim=claim, path=path, sha256=sha256, report=report, fit=fit)
    if adapter is None:
        raise ClaimLost
