"""The plan of a sweep before it begins: its trials, what they take, and why it may not begin."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.conf import settings

from feedback_app.feedback.models import Project
from feedback_app.training.runs.config import RunConfig
from feedback_app.training.runs.planning.objections import loss_objections, request_objections
from feedback_app.training.runs.planning.plan import RunPlan, run_plan, seconds_expected
from feedback_app.training.runs.settings import SFT
from feedback_app.training.snapshots.caps import SnapshotTotals
from feedback_app.web.text.plurals import number_of


@dataclass(frozen=True)
class SweepPlan:
    """`minutes` of one worker for all trials together; `cost` is None where an hour of a worker has
    no price. `objections` is empty if the sweep may begin; `example_objections` are those of them
    that follow from the examples."""

    trials: tuple[RunConfig, ...]
    examples: int
    validation: int
    minutes: float
    longest: float
    cost: float | None
    objections: tuple[str, ...]
    example_objections: tuple[str, ...]

    def forecast_json(self) -> dict[str, Any]:
        """Return what is stored with the sweep."""
        return {"minutes": round(self.minutes, 1), "cost": self.cost}


def sweep_plan(
    *,
    project: Project,
    base: RunConfig,
    trials: Sequence[RunConfig],
    max_hours: float,
    totals: SnapshotTotals,
) -> SweepPlan:
    """Return what these trials would take. `base` has the settings that they share."""
    plan = run_plan(project=project, config=base, totals=totals, beside_others=True)
    minutes = [_minutes(project, plan, trial) for trial in trials]
    total = sum(minutes)
    price = settings.WORKER_HOUR_PRICE
    examples = [*_example_objections(project, plan, trials), *plan.example_objections]
    examples += _limits(total / 60, max(minutes) / 60, max_hours, project)
    requested = sweep_request_objections(project, base)
    return SweepPlan(
        trials=tuple(trials),
        examples=plan.train_total,
        validation=plan.validation_total,
        minutes=total,
        longest=max(minutes),
        cost=round(total / 60 * price, 2) if price else None,
        objections=tuple(dict.fromkeys([*requested, *examples])),
        example_objections=tuple(dict.fromkeys(examples)),
    )


def sweep_request_objections(project: Project, base: RunConfig) -> list[str]:
    """Return why a sweep is refused whatever the examples are. No statement reads them."""
    found = request_objections(project, base, beside_others=True)
    open_one = project.sweeps.filter(ended_at=None).first()
    if open_one is not None:
        found.append(f"{open_one} is in progress: wait for it or cancel it.")
    return found


def _minutes(project: Project, plan: RunPlan, trial: RunConfig) -> float:
    examples = plan.train_up if trial.loss == SFT else plan.train_total
    return seconds_expected(examples * trial.epochs, plan.seconds_per_example) / 60


def _example_objections(project: Project, plan: RunPlan, trials: Sequence[RunConfig]) -> list[str]:
    found = []
    for loss in dict.fromkeys(trial.loss for trial in trials):
        found += loss_objections(project, loss, plan.train_up, plan.train_down)
    if not plan.stops_early:
        found.append(
            f"{number_of(plan.validation_total, 'validation example')}: a sweep compares its "
            "trials by them, and needs eight, of both kinds. Annotate more answers."
        )
    largest = max(trial.batch_size for trial in trials)
    if plan.train_total < largest:
        found.append(
            f"{number_of(plan.train_total, 'example')}: fewer than one batch of {largest}. "
            "Annotate more or choose a smaller batch."
        )
    return found


def _limits(hours: float, longest: float, max_hours: float, project: Project) -> list[str]:
    """Return which limits the forecast exceeds: of the sweep, and of one run."""
    found = []
    if hours > max_hours:
        found.append(
            f"The trials take about {hours:.1f} worker hours, more than the {max_hours:g} that "
            "this sweep may take: choose fewer trials or epochs, or allow more hours."
        )
    limits = [project.run_hours, settings.RUN_MAX_HOURS]
    if settings.RUN_MAX_COST:
        limits.append(settings.RUN_MAX_COST / settings.WORKER_HOUR_PRICE)
    least = min((limit for limit in limits if limit), default=None)
    if least is not None and longest > least:
        found.append(
            f"The longest trial takes about {longest:.1f} hours, and a run may take {least:g}."
        )
    return found
