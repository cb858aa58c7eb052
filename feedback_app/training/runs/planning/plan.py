"""The plan of a run before its snapshot is taken: counts, λ, minutes, objections."""

import datetime as dt
import math
from dataclasses import dataclass, replace
from typing import Any

from feedback_app.db.bounded_count import counted
from feedback_app.feedback.models import Project
from feedback_app.training.gate.chance import Chance, chance
from feedback_app.training.gate.evaluation import prompts_available
from feedback_app.training.gate.forecast import Forecast, forecast
from feedback_app.training.gate.services import gate_settings
from feedback_app.training.models import Run
from feedback_app.training.runs.config import RunConfig
from feedback_app.training.runs.planning.objections import (
    example_objections,
    examples_used,
    request_objections,
)
from feedback_app.training.runs.settings import WITHOUT_LAMBDA
from feedback_app.training.snapshots.caps import SnapshotTotals
from feedback_app.training.snapshots.figures import snapshot_figures

#: With fewer validation examples the trainer measures no validation loss and keeps the last adapter
#: (trainer/training/run_directory.py).
MIN_VALIDATION = 8
#: Seconds per example and epoch before any run was measured (two cores, 135M parameters).
SECONDS_PER_EXAMPLE = 0.9
OVERHEAD_SECONDS = 90.0
#: The last steps of a run that tell its speed.
STEPS_READ = 100


@dataclass(frozen=True)
class RunPlan:
    """The numbers that the Train page shows; `objections` is empty if the run may start. Those
    of them that name too few examples are `example_objections`.

    `new_examples` is bounded by `bounded_count.COUNTED`; `counted_at` is None for a plan that was
    made just now.
    """

    train_up: int
    train_down: int
    validation_up: int
    validation_down: int
    test_up: int
    test_down: int
    lambda_d: float
    lambda_u: float
    steps: int
    minutes: float
    new_examples: int
    left_out: int
    restored: int
    left_out_people: int
    objections: tuple[str, ...]
    example_objections: tuple[str, ...]
    seconds_per_example: float
    #: what the gate will have to go on
    gate: Forecast
    #: what became of earlier runs
    chance: Chance
    counted_at: dt.datetime | None = None

    def forecast_json(self) -> dict[str, Any]:
        """Return what is stored with the run, to compare with what becomes of it."""
        return {"minutes": round(self.minutes, 1), **self.chance.as_json()}

    @property
    def train_total(self) -> int:
        return self.train_up + self.train_down

    @property
    def validation_total(self) -> int:
        return self.validation_up + self.validation_down

    @property
    def stops_early(self) -> bool:
        """Return whether there are enough validation examples to choose an adapter by."""
        enough = self.validation_total >= MIN_VALIDATION
        return enough and min(self.validation_up, self.validation_down) > 0

    @property
    def test_total(self) -> int:
        return self.test_up + self.test_down


def lambdas(desirable: float, undesirable: float) -> tuple[float, float]:
    """Return (λ_D, λ_U) with λ_D·W_D / (λ_U·W_U) in [1, 4/3], one of them 1.

    The arguments are W_D and W_U, the summed example weights of each class of the training split.
    The trainer applies the same rule (Ethayarajh et al. 2024, Eq. 8, where all weights are 1);
    here it is only shown.
    """
    if not desirable or not undesirable:
        return 1.0, 1.0
    ratio = desirable / undesirable
    if ratio < 1:
        return 1 / ratio, 1.0
    if ratio > 4 / 3:
        return 1.0, ratio * 3 / 4
    return 1.0, 1.0


def run_plan_shown(*, project: Project, config: RunConfig) -> RunPlan | None:
    """Return the plan for the Train page, up to a minute old; None until a worker has counted the
    votes of a large project."""
    found = snapshot_figures(project)
    if found.value is None:
        return None
    plan = run_plan(project=project, config=config, totals=found.value)
    return replace(plan, counted_at=found.at)


def run_plan(
    *, project: Project, config: RunConfig, totals: SnapshotTotals, beside_others: bool = False
) -> RunPlan:
    """Return what a run with these settings would train on. `beside_others`: another run in
    progress is no objection."""
    counts = totals.counts
    train_up, train_down = counts["train_up"], counts["train_down"]
    total = examples_used(config, totals)
    lambda_d, lambda_u = _lambdas_of(config, totals)
    steps = math.ceil(total / config.batch_size) * config.epochs if total else 0
    examples = example_objections(project, config, totals)
    objections = [*request_objections(project, config, beside_others=beside_others), *examples]
    succeeded = project.runs.on_new_examples().filter(status=Run.Status.SUCCEEDED)
    last = succeeded.newest_first().select_related("snapshot").first()
    fresh = project.examples.all()
    if last is not None:
        fresh = fresh.filter(created_at__gt=last.snapshot.created_at)
    speed = _seconds_per_example(last)
    return RunPlan(
        train_up=train_up,
        train_down=train_down,
        validation_up=counts["validation_up"],
        validation_down=counts["validation_down"],
        test_up=counts["test_up"],
        test_down=counts["test_down"],
        lambda_d=lambda_d,
        lambda_u=lambda_u,
        steps=steps,
        minutes=seconds_expected(total * config.epochs, speed) / 60,
        new_examples=counted(fresh),
        left_out=totals.left_out,
        restored=totals.restored,
        left_out_people=totals.people,
        objections=tuple(objections),
        example_objections=tuple(examples),
        seconds_per_example=speed,
        gate=forecast(
            gate_settings(project),
            prompts=prompts_available(project),
            ups=counts["test_up"],
            downs=counts["test_down"],
            learned=train_up + train_down + counts["validation_up"] + counts["validation_down"],
        ),
        chance=chance(project),
    )


def _lambdas_of(config: RunConfig, totals: SnapshotTotals) -> tuple[float, float]:
    """Return (λ_D, λ_U) as given, or by the rule."""
    if config.loss in WITHOUT_LAMBDA:
        return 1.0, 1.0
    ups, downs = totals.train_weight_up, totals.train_weight_down
    given_d, given_u = config.lambda_d, config.lambda_u
    # the rule brings λ_D·W_D / (λ_U·W_U) in [1, 4/3]: a given λ is part of its class's weight
    if given_d is not None and given_u is None and downs:
        ratio = given_d * ups / downs
        return given_d, min(max(1.0, ratio * 3 / 4), ratio)
    if given_u is not None and given_d is None and ups:
        ratio = given_u * downs / ups
        return min(max(1.0, ratio), ratio * 4 / 3), given_u
    lambda_d, lambda_u = lambdas(ups, downs)
    return (
        lambda_d if given_d is None else given_d,
        lambda_u if given_u is None else given_u,
    )


def seconds_expected(examples: int, seconds_per_example: float) -> float:
    """Return the expected duration of a run that sees this many examples, over all epochs."""
    return OVERHEAD_SECONDS + examples * seconds_per_example


def _seconds_per_example(last: Run | None) -> float:
    """Return the speed of the last run if there is one."""
    if last is not None:
        steps = last.metrics.order_by("-step").values_list("seconds", flat=True)[:STEPS_READ]
        spent, trained = sum(steps), len(steps) * last.config["batch_size"]
        if spent and trained:
            return float(spent / trained)
    return SECONDS_PER_EXAMPLE
