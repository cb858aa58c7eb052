"""A sweep's trials, compared by what they measured on the validation examples."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from feedback_app.feedback.models import Project
from feedback_app.training.models import Run, Sweep
from feedback_app.training.runs.config import RunConfig
from feedback_app.training.runs.settings import BY_NAME
from feedback_app.training.side_by_side.selectors import settings_shown
from feedback_app.training.sweeps.probes import Measure, kept_of, measure_of, probes_of

#: Columns of the table that are no settings.
RUN, STATE, MEASURE = "run", "state", "measure"
#: Those who can be chosen, or were.
FINISHED = (Run.Status.TRAINED, Run.Status.SUCCEEDED)


@dataclass(frozen=True)
class Trial:
    """A trial with the settings that the sweep varies, as numbers or keys and as they are shown.

    `value` is the measure of the adapter that was kept, None before the first probe; `step` where
    it was measured.
    """

    run: Run
    settings: dict[str, Any]
    shown: list[str]
    value: float | None
    step: int | None
    score: float | None

    @property
    def figure(self) -> str:
        return "" if self.value is None else f"{self.value:.3f}"

    @property
    def finished(self) -> bool:
        return self.run.status in FINISHED

    @property
    def choosable(self) -> bool:
        """Whether the gate can judge it, once the sweep has ended and none is chosen."""
        run = self.run
        return run.status == Run.Status.TRAINED and bool(self.figure) and not run.adapter_deleted_at


@dataclass(frozen=True)
class Progress:
    """How many trials are where."""

    total: int
    ended: int
    trained: int
    stopped: int
    failed: int
    active: int
    waiting: int

    @property
    def running(self) -> int:
        return self.active - self.waiting


def sweep_of(project: Project, number: int) -> Sweep | None:
    """Return the project's sweep of this number."""
    rows = Sweep.objects.select_related("project", "snapshot", "requested_by")
    return rows.filter(project=project, number=number).first()


def trials_shown(sweep: Sweep) -> list[Trial]:
    """Return the trials in the order in which they were queued, in one query."""
    measure = measure_of(sweep)
    runs = sweep.trials.order_by("number").defer("fit", "forecast")
    return [trial_of(run, list(sweep.space), measure) for run in runs]


def trial_of(run: Run, names: Sequence[str], measure: Measure) -> Trial:
    kept = kept_of(probes_of(run))
    config = RunConfig.stored(run.config)
    score = None if kept is None else kept.score(measure)
    return Trial(
        run=run,
        settings={name: getattr(config, name) for name in names},
        shown=settings_shown(config, names),
        value=None if score is None else abs(score),
        step=None if kept is None else kept.step,
        score=score,
    )


def best_of(trials: Sequence[Trial]) -> Trial | None:
    """Return the trained trial that is best on the validation examples; the earlier of equals."""
    measured = [t for t in trials if t.finished and t.score is not None]
    return min(measured, key=lambda trial: trial.score or 0.0, default=None)


def progress_of(trials: Sequence[Trial]) -> Progress:
    status = [trial.run.status for trial in trials]
    training = [trial for trial in trials if not trial.run.evaluates]
    active = sum(trial.run.active for trial in training)
    return Progress(
        total=len(trials),
        ended=len(trials) - active,
        trained=sum(trial.finished for trial in trials),
        stopped=status.count(Run.Status.STOPPED),
        failed=status.count(Run.Status.FAILED),
        active=active,
        waiting=sum(trial.run.status == Run.Status.QUEUED for trial in training),
    )


def trials_sorted(trials: Sequence[Trial], *, by: str, descending: bool) -> list[Trial]:
    """Return the trials by a column; those without a value come last."""

    def value(trial: Trial) -> Any:
        if by == MEASURE:
            return trial.value
        if by == STATE:
            return trial.run.get_status_display()
        return trial.run.number if by == RUN else trial.settings[by]

    known = [trial for trial in trials if value(trial) is not None]
    empty = [trial for trial in trials if value(trial) is None]
    return sorted(known, key=value, reverse=descending) + empty


def columns_of(sweep: Sweep) -> dict[str, str]:
    """Return the columns of the table that can be sorted, and their labels."""
    settings = {name: BY_NAME[name].label for name in sweep.space}
    measure = "Validation loss" if measure_of(sweep) == "loss" else "Validation ranking"
    return {RUN: "Trial", MEASURE: measure, STATE: "State"} | settings


def trial_chosen(sweep: Sweep) -> Run | None:
    """Return the trial that was chosen for the gate."""
    return sweep.trials.evaluated().select_related("adapter").first()
