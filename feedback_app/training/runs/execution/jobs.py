"""One job of a run: started by a launcher, followed by its events, ended with the claim."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from django.conf import settings

from feedback_app.db.claims import ClaimLost
from feedback_app.db.heartbeats import Heartbeat
from feedback_app.training.launchers.base import CANCELLED, Job, Launcher
from feedback_app.training.runs.claims import RunClaim
from feedback_app.training.runs.events import events_store, read_new_events
from feedback_app.training.runs.execution.storage import RunFiles
from feedback_app.training.runs.limits import RunLimit, run_limit
from feedback_app.training.sweeps.stopping import stop_reason
from feedback_app.web.log_context import request_id

POLL_SECONDS = 0.5


@dataclass(frozen=True)
class JobEnd:
    """How a job ended: its exit code (launchers/base.py), the end of its output, and why."""

    code: int
    output: str = ""
    # the limit for which it was ended
    limit: RunLimit | None = None
    # why a trial of a sweep was stopped early
    early: str = ""


def job_run(
    claim: RunClaim,
    launcher: Launcher,
    command: Literal["train", "adopt", "evaluate"],
    directory: Path,
    *,
    alive: Heartbeat,
    files: RunFiles,
) -> JobEnd:
    """Run `python -m trainer COMMAND DIRECTORY` to its end and store its events.

    Each new checkpoint goes to the artifact store; a job on another host stores its own. Returns
    CANCELLED without starting it if the run has been cancelled. Raises ClaimLost, after ending the
    job, if `alive` or a write of events finds the claim lost. Raises StoreError and LaunchError.
    """
    if claim.cancel_requested():
        return JobEnd(CANCELLED)
    path = directory / "events.jsonl"
    # the evaluation has its own events, read from the start in each attempt
    training = command != "evaluate"
    offset = claim.row.events_offset if training else 0
    if launcher.elsewhere:
        files.hand_over()
    job_id = launcher.submit(
        Job(
            name=f"run-{claim.row.pk}-{claim.attempt}-{command}",
            command=command,
            directory=directory,
            nice=settings.TRAINER_NICE,
            environment={"PROSPECT_REQUEST_ID": request_id()},  # in every event (trainer/events.py)
            tree=claim.row.tree,
            generation=claim.attempt,
            reads=files.reads() if launcher.elsewhere else (),
        )
    )
    try:
        limit, over, early = run_limit(claim.row), False, ""
        stopping = False
        while True:
            code = launcher.poll(job_id)
            if code is not None and launcher.elsewhere:
                files.take_back()
            new, offset_now = read_new_events(path, offset)
            if alive.lost:
                raise ClaimLost
            if new:
                fields = {"events_offset": offset_now} if training else {}
                if not events_store(claim, new, **fields):
                    raise ClaimLost
                offset = offset_now
                if any(event.get("type") == "checkpoint" for event in new):
                    files.checkpointed()
                if any(event.get("type") == "probe" for event in new):
                    early = early or stop_reason(claim.row.pk)
            if code is not None:
                return JobEnd(code, launcher.logs(job_id), limit if over else None, early)
            over = over or (limit is not None and limit.reached(claim.row))
            if not stopping and (over or early or claim.cancel_requested()):
                launcher.cancel(job_id)
                stopping = True
            files.push_due()
            time.sleep(POLL_SECONDS)
    finally:
        launcher.end(job_id)
