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
from feedback_app.feedback.models import BASE_VERSION, Split
from feedback_app.training.models import Run
from feedback_app.training.registry.files import BadAdapter, adapter_publish
from feedback_app.training.runs import services
from feedback_app.training.runs.claims import RunClaim
from feedback_app.training.runs.events import events_store, read_new_events
from feedback_app.training.snapshots.files import (
    TEST_FILE,
    context,
    gate_examples_write,
    snapshot_write,
)
from feedback_app.web.log_context import request_id

log = structlog.get_logger(__name__)

# exit codes of `python -m trainer` (docs/architecture.md, the trainer's contract)
DONE, CANCELLED, REFUSED, FAILED, NOT_WRITTEN = 0, 3, 4, 5, 6
MAX_ATTEMPTS = 5  # of a trainer that fails
MAX_CLAIMS = 20  # of workers that stop or die
POLL_SECONDS = 0.5
GATE_PROMPTS = 40


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
        evaluation = prepare_evaluation(run)
        code = child_run(claim, ["evaluate", str(evaluation)], events=evaluation, alive=heartbeat)
        if code == DONE:
            finish(claim, evaluation)
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
            claim=claim, status=Run.Status.FAILED, error=failure_message(run.directory)
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
    (run.directory / "evaluation" / TEST_FILE).unlink(missing_ok=True)
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


def prepare_evaluation(run: Run) -> Path:
    """Write the input of the comparison of new, live and base on the test split.

    Call it after training: this is the first file with test examples.
    """
    directory = run.directory / "evaluation"
    directory.mkdir(exist_ok=True)
    adapter_name = run.project.adapter_name(run.number)
    candidates: list[dict[str, Any]] = [
        {"name": adapter_name, "path": str(run.directory / "adapter")}
    ]
    run.project.refresh_from_db(fields=["live_version"])
    live = run.project.adapters.filter(name=run.project.live_version).first()
    if live is not None:
        candidates.append({"name": live.name, "path": str(live.directory)})
    candidates.append({"name": BASE_VERSION, "path": None})
    write_json(
        directory / "evaluate.json",
        {
            "base_model": model_path(run.project.base_model),
            "candidates": candidates,
            "max_tokens": run.project.max_tokens,
            "temperature": run.project.temperature,
            "top_p": run.project.top_p,
            "seed": run.config.get("seed", 0),
        },
    )
    gate_examples_write(run.snapshot, directory)
    prompts: dict[int, list[dict[str, str]]] = {}
    items = run.snapshot.items.filter(split=Split.TEST).select_related("completion__prompt")
    for item in items.order_by("completion__prompt_id", "completion_id"):
        prompts.setdefault(item.completion.prompt_id, context(item.completion))
        if len(prompts) == GATE_PROMPTS:
            break
    with (directory / "prompts.jsonl").open("w") as file:
        for pk, messages in prompts.items():
            file.write(json.dumps({"id": str(pk), "messages": messages}) + "\n")
    return directory


def finish(claim: RunClaim, evaluation: Path) -> None:
    """Publish the adapter's files, then register it with its gate report."""
    run = claim.row
    name = run.project.adapter_name(run.number)
    # PostgreSQL stores no NUL, which a model may generate
    report = json.loads((evaluation / "report.json").read_text().replace("\\u0000", "\\ufffd"))
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
            return f"{event['reason']}{step}. {event.get('advice', '')}".strip()
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
