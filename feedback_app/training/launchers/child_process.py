"""Launcher that runs the trainer as a child process and stores its events.

A separate process: CUDA does not survive a fork, a crash of the trainer must not end the worker,
and all of its memory is released. No transaction spans the training.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import structlog
from django.conf import settings

from feedback_app.db.claims import ClaimLost
from feedback_app.db.heartbeats import Heartbeat
from feedback_app.training.gate.evaluation import (
    TEST_FILE,
    evaluation_directory,
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
from feedback_app.training.models import Run, RunNote
from feedback_app.training.registry.files import BadAdapter, adapter_publish
from feedback_app.training.runs import services
from feedback_app.training.runs.claims import RunClaim
from feedback_app.training.runs.config import with_labels
from feedback_app.training.runs.events import events_store, read_new_events
from feedback_app.training.snapshots.files import snapshot_write
from feedback_app.web.log_context import request_id

log = structlog.get_logger(__name__)

# exit codes of `python -m trainer` (docs/architecture.md, the trainer's contract)
DONE, CANCELLED, REFUSED, FAILED, NOT_WRITTEN = 0, 3, 4, 5, 6
MAX_ATTEMPTS = 5  # of a trainer that fails
MAX_CLAIMS = 20  # of workers that stop or die
POLL_SECONDS = 0.5


class RunHopeless(Exception):
    """The run failed in a way that a retry would repeat."""


def run_execute(claim: RunClaim) -> None:
    """Execute a claimed run: train, evaluate, register. Safe to repeat at any point."""
    run = claim.row
    try:
        with claim.kept_alive() as heartbeat:
            train_and_evaluate(claim, heartbeat)
    except ClaimLost:
        log.warning("claim_lost", run=run.pk, attempt=claim.attempt)
    except (OSError, BadAdapter, RunHopeless) as error:
        services.run_end(
            claim=claim,
            status=Run.Status.FAILED,
            error=f"{error}. Earlier adapters are intact; fix the cause and resume the run.",
        )


def train_and_evaluate(claim: RunClaim, heartbeat: Heartbeat) -> None:
    """Run both child processes and end the run. Raises what run_execute catches."""
    run = claim.row
    if claim.attempt > MAX_CLAIMS:
        raise RunHopeless(f"{claim.attempt} workers in a row died while executing this run")
    prepare(run)
    # returns at once if an earlier attempt has finished training
    code = child_run(claim, ["train", str(run.directory)], events=run.directory, alive=heartbeat)
    if code == DONE:
        claim.heartbeat(status=Run.Status.EVALUATING, phase="", eta_seconds=None)
        code = evaluate(claim, heartbeat)
        if code == DONE:
            finish(claim)
            return
    settle(claim, code)


def settle(claim: RunClaim, code: int) -> None:
    """End or requeue the run after an exit code other than 0."""
    run = claim.row
    # a trainer that is stopped while it starts has no signal handler yet
    stopped = code in (CANCELLED, -signal.SIGTERM)
    if stopped and claim.cancel_requested():
        services.run_end(claim=claim, status=Run.Status.CANCELLED)
    elif code in (REFUSED, FAILED):
        services.run_end(
            claim=claim,
            status=Run.Status.FAILED,
            error=failure_message(run.directory),
            # what was refused may be installed or repaired; a failure would be repeated
            resumable=code == REFUSED,
        )
    elif code == NOT_WRITTEN:
        # its last event may not have been written either
        services.run_end(
            claim=claim, status=Run.Status.FAILED, error=disk_full_message(run.directory)
        )
    elif not stopped and claim.attempt >= MAX_ATTEMPTS:
        services.run_end(
            claim=claim,
            status=Run.Status.FAILED,
            error=f"The trainer ended with code {code} in {claim.attempt} attempts. "
            + failure_message(run.directory),
        )
    else:
        why = "The worker was stopped" if stopped else f"The trainer failed ({code})"
        services.run_requeue(claim=claim, why=f"{why}: resuming from the last checkpoint.")


def prepare(run: Run) -> None:
    """Write the trainer's input. The same rows give the same files, so it can be repeated."""
    restart_if_outdated(run.directory)
    # left by an attempt that was interrupted in the evaluation: while a process trains, no file
    # holds the test split
    (evaluation_directory(run) / TEST_FILE).unlink(missing_ok=True)
    if not (run.directory / "examples.jsonl").exists():
        snapshot_write(run.snapshot, run.directory)
    config = {
        **run.config,
        "base_model": model_path(run.project.base_model),
        "adapter_name": run.project.adapter_name(run.number),
        # shared by all runs: reference log-probabilities of old examples are not computed again
        "reference_cache": str(Path(settings.ARTIFACT_ROOT) / "reference"),
    }
    write_json(run.directory / "config.json", config)


def restart_if_outdated(directory: Path) -> None:
    """Remove the files of a run that an earlier version began, so that it starts over.

    Before there was a validation split, training chose its adapter by heldout.jsonl, and part of
    those examples are test examples now. An adapter or checkpoint from then would be judged by what
    it was chosen by.
    """
    outdated = directory / "heldout.jsonl"
    if not outdated.exists():
        return
    for name in ("adapter", "checkpoints", "evaluation"):
        shutil.rmtree(directory / name, ignore_errors=True)
    (directory / "examples.jsonl").unlink(missing_ok=True)
    outdated.unlink()  # last, so that an interrupted removal is repeated


def evaluate(claim: RunClaim, heartbeat: Heartbeat) -> int:
    """Compare the new adapter with live and base; look a second time, at more answers, if the first
    look decides too little. Returns the exit code of the trainer.

    Call it after training: these are the first files with test examples.
    """
    run = claim.row
    settings = gate_settings(run.project)
    base_model = model_path(run.project.base_model)
    look = first_look(settings)
    code, seconds, judge_seconds = DONE, 0.0, 60 * settings.judge_minutes
    for last in (False, True):
        directory = evaluation_write(run, look, base_model=base_model)
        code = child_run(claim, ["evaluate", str(directory)], events=directory, alive=heartbeat)
        if code != DONE:
            break
        if settings.primary == "judge":
            judged = time.monotonic()
            if not judge_asked(claim, settings, seconds=judge_seconds, alive=heartbeat):
                return CANCELLED
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
        services.run_note(
            run=run,
            text=f"{len(report['answers'])} prompts with {look.answers} answers leave the gate "
            f"undecided: sampling {more.answers} answers to {more.prompts} prompts.",
        )
        look = more
    return code


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


def child_run(claim: RunClaim, arguments: list[str], *, events: Path, alive: Heartbeat) -> int:
    """Run `python -m trainer …` to its end and return its exit code.

    Returns CANCELLED without starting it if the run has been cancelled. Raises ClaimLost, after
    ending the child, if `alive` or a write of events finds the claim lost.
    """
    if claim.cancel_requested():
        return CANCELLED
    path = events / "events.jsonl"
    # the evaluation has its own events, read from the start in each attempt
    training = arguments[0] == "train"
    offset = claim.row.events_offset if training else 0
    options = ["--stop-with-parent", "--nice", str(settings.TRAINER_NICE)]
    with (events / "trainer.log").open("ab") as output:
        child = subprocess.Popen(
            [sys.executable, "-m", "trainer", *arguments, *options],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=settings.BASE_DIR,
            env={
                **os.environ,
                "TOKENIZERS_PARALLELISM": "false",
                "PROSPECT_REQUEST_ID": request_id(),  # in every event (trainer/events.py)
            },
        )
        log.info("trainer_started", run=claim.row.pk, command=arguments[0], pid=child.pid)
        try:
            stopping = False
            while True:
                code = child.poll()
                new, offset_now = read_new_events(path, offset)
                if alive.lost:
                    raise ClaimLost
                if new:
                    fields = {"events_offset": offset_now} if training else {}
                    if not events_store(claim, new, **fields):
                        raise ClaimLost
                    offset = offset_now
                if code is not None:
                    return code
                if not stopping and claim.cancel_requested():
                    child.send_signal(signal.SIGTERM)
                    stopping = True
                time.sleep(POLL_SECONDS)
        finally:
            if child.poll() is None:
                child.send_signal(signal.SIGTERM)
                try:
                    child.wait(timeout=30)
                except subprocess.TimeoutExpired:
                    child.kill()
                    child.wait()


def disk_full_message(directory: Path) -> str:
    """Return the message of a run that could not write."""
    free = shutil.disk_usage(directory).free / 2**30
    return (
        f"The trainer could not write under {settings.ARTIFACT_ROOT}: the disk is full "
        f"({free:.1f} GiB are free now) or not writable. Free some space or change the "
        "permissions, then resume the run: it continues from its last checkpoint. Earlier "
        "adapters are intact."
    )


def failure_message(directory: Path) -> str:
    """Return why the trainer failed: its failure event, or its last line of output."""
    events, _ = read_new_events(directory / "events.jsonl", 0)
    for event in reversed(events):
        if event.get("type") == "failed":
            step = f" at step {event['step']}" if event.get("step") is not None else ""
            advice = event.get("advice") or ""
            text = f"{event['reason']}{step}. {advice[:1].upper()}{advice[1:]}".strip()
            return with_labels(text.rstrip(".") + ".")
    output = directory / "trainer.log"
    lines = output.read_text(errors="replace").strip().splitlines() if output.exists() else []
    return "Its last output: " + (lines[-1][:500] if lines else "none")


def model_path(base_model: str) -> str:
    """Return the path of a local base model if it exists, else its hub id."""
    local = Path(settings.MODELS_ROOT) / base_model
    return str(local) if local.is_dir() else base_model


def write_json(path: Path, data: dict[str, Any]) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(data, indent=1))
    partial.replace(path)
