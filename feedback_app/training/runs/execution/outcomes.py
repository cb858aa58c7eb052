"""What becomes of a run whose job has ended without a result, by the job's exit code."""

import shutil
import signal
from pathlib import Path

from django.conf import settings

from feedback_app.training.launchers.base import CANCELLED, FAILED, NOT_WRITTEN, REFUSED
from feedback_app.training.models import Run
from feedback_app.training.runs import services
from feedback_app.training.runs.claims import RunClaim
from feedback_app.training.runs.config import with_labels
from feedback_app.training.runs.events import read_new_events
from feedback_app.training.runs.execution.jobs import JobEnd
from feedback_app.training.sweeps.stopping import trial_end

MAX_ATTEMPTS = 5  # of a trainer that fails


def settle(claim: RunClaim, ended: JobEnd) -> None:
    """End or requeue the run after an exit code other than 0."""
    run, code = claim.row, ended.code
    # a trainer that is stopped while it starts has no signal handler yet
    stopped = code in (CANCELLED, -signal.SIGTERM)
    if stopped and claim.cancel_requested():
        services.run_end(claim=claim, status=Run.Status.CANCELLED)
    elif stopped and ended.early:
        trial_end(claim, Run.Status.STOPPED, ended.early)
    elif stopped and ended.limit is not None:
        services.run_end(claim=claim, status=Run.Status.FAILED, error=ended.limit.message)
    elif code in (REFUSED, FAILED):
        services.run_end(
            claim=claim,
            status=Run.Status.FAILED,
            error=failure_message(run.directory, ended.output),
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
            + failure_message(run.directory, ended.output),
        )
    else:
        why = "The worker was stopped" if stopped else f"The trainer failed ({code})"
        services.run_requeue(claim=claim, why=f"{why}: resuming from the last checkpoint.")


def disk_full_message(directory: Path) -> str:
    """Return the message of a run that could not write."""
    free = shutil.disk_usage(directory).free / 2**30
    return (
        f"The trainer could not write under {settings.ARTIFACT_ROOT}: the disk is full "
        f"({free:.1f} GiB are free now) or not writable. Free some space or change the "
        "permissions, then resume the run: it continues from its last checkpoint. Earlier "
        "adapters are intact."
    )


def failure_message(directory: Path, output: str) -> str:
    """Return why the trainer failed: its failure event, or its last line of output."""
    events, _ = read_new_events(directory / "events.jsonl", 0)
    for event in reversed(events):
        if event.get("type") == "failed":
            step = f" at step {event['step']}" if event.get("step") is not None else ""
            advice = event.get("advice") or ""
            text = f"{event['reason']}{step}. {advice[:1].upper()}{advice[1:]}".strip()
            return with_labels(text.rstrip(".") + ".")
    lines = output.strip().splitlines()
    return "Its last output: " + (lines[-1][:500] if lines else "none")
