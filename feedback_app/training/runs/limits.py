"""How long a run may occupy a worker: hours of the installation and the project, or a cost."""

import datetime as dt
from dataclasses import dataclass

from django.conf import settings
from django.utils import timezone

from feedback_app.training.models import Run
from feedback_app.training.sweeps.hours import hours_spent


@dataclass(frozen=True)
class RunLimit:
    """Worker hours of a run, from its first claim or its last resumption; `name` says whose."""

    hours: float
    name: str

    def reached(self, run: Run, now: dt.datetime | None = None) -> bool:
        """Return whether the run has had its time."""
        if run.started_at is None:
            return False
        return (now or timezone.now()) - run.started_at > dt.timedelta(hours=self.hours)

    @property
    def message(self) -> str:
        return (
            f"The run has reached {self.name}, {self.hours:.3g} hours, and was ended after a "
            "checkpoint. Earlier adapters are intact. Raise the limit or resume the run: it "
            "continues from the checkpoint and has the same time again."
        )


def run_limit(run: Run) -> RunLimit | None:
    """Return the smallest limit that applies to a run; None if there is none."""
    limits = []
    if run.project.run_hours:
        limits.append(RunLimit(run.project.run_hours, "the limit of its project"))
    if settings.RUN_MAX_HOURS:
        limits.append(RunLimit(settings.RUN_MAX_HOURS, "RUN_MAX_HOURS"))
    if settings.RUN_MAX_COST:
        hours = settings.RUN_MAX_COST / settings.WORKER_HOUR_PRICE
        limits.append(RunLimit(hours, f"RUN_MAX_COST ({settings.RUN_MAX_COST:g})"))
    if run.sweep is not None and not run.evaluates:
        # not this trial's own hours: they count against what it may take
        left = run.sweep.max_hours - hours_spent(run.sweep, besides=run)
        limits.append(RunLimit(max(0.0, left), "what its sweep may take"))
    return min(limits, key=lambda limit: limit.hours, default=None)
