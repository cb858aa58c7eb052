"""A worker process without the trainer: `python -m tests.training.runs.worker SECONDS RUN_SECONDS`.

Takes runs until SECONDS have passed without one, holds each for RUN_SECONDS with its heartbeats and
ends it. It prints `took RUN ATTEMPT` and `ended RUN ATTEMPT`.
"""

import sys
import time
from typing import Any

import django


def say(what: str, claim: Any) -> None:
    sys.stdout.write(f"{what} {claim.row.pk} {claim.attempt}\n")
    sys.stdout.flush()


def main(idle_seconds: float, run_seconds: float) -> None:
    from feedback_app.training.models import Run
    from feedback_app.training.runs import services
    from feedback_app.training.runs.waiting import run_claim_next

    idle_since = time.monotonic()
    while time.monotonic() - idle_since < idle_seconds:
        claim = run_claim_next()
        if claim is None:
            time.sleep(0.05)
            continue
        say("took", claim)
        with claim.kept_alive():
            time.sleep(run_seconds)
            services.run_end(claim=claim, status=Run.Status.CANCELLED)
        say("ended", claim)
        idle_since = time.monotonic()


if __name__ == "__main__":
    django.setup()
    main(float(sys.argv[1]), float(sys.argv[2]))
