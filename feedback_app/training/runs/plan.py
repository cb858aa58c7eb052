"""The plan of a run before its snapshot is taken: counts, λ, minutes, objections."""

import datetime as dt
import math
from dataclasses import dataclass, replace
from typing import Any

from feedback_app.db.bounded_count import counted
from feedback_app.feedback.access import ARCHIVED
from feedback_app.feedback.models import Project
from feedback_app.training.gate.evaluation import prompts_available
from feedback_app.training.gate.forecast import Forecast, forecast
from feedback_app.training.gate.services import gate_settings
from feedback_app.training.models import Run
from feedback_app.training.snapshots.caps import SnapshotTotals
from feedback_app.training.snapshots.figures import snapshot_figures

#: The fewest examples of each class that a run can train on and compare versions with.
MIN_PER_CLASS = 4
MIN_TEST_PER_CLASS = 1
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
    """The numbers that the Train page shows; `objections` is empty if the run may start.

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
    #: what the gate will have to go on
    gate: Forecast
    counted_at: dt.datetime | None = None

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


def run_plan_shown(*, project: Project, config: dict[str, Any]) -> RunPlan | None:
    """Return the plan for the Train page, up to a minute old; None until a worker has counted the
    votes of a large project."""
    found = snapshot_figures(project)
    if found.value is None:
        return None
    plan = run_plan(project=project, config=config, totals=found.value)
    return replace(plan, counted_at=found.at)


def run_plan(*, project: Project, config: dict[str, Any], totals: SnapshotTotals) -> RunPlan:
    """Return what a run would train on. `config` holds the batch size and the epochs."""
    counts = totals.counts
    train_up, train_down = counts["train_up"], counts["train_down"]
    total = train_up + train_down
    lambda_d, lambda_u = lambdas(totals.train_weight_up, totals.train_weight_down)
    steps = math.ceil(total / config["batch_size"]) * config["epochs"] if total else 0
    objections = [ARCHIVED] if project.archived_at else []
    if train_up < MIN_PER_CLASS or train_down < MIN_PER_CLASS:
        objections.append(
            f"{train_up} up and {train_down} down: KTO needs at least {MIN_PER_CLASS} of each "
            "to learn the difference. Annotate more answers."
        )
    if min(counts["test_up"], counts["test_down"]) < MIN_TEST_PER_CLASS:
        objections.append(
            f"{counts['test_up']} up and {counts['test_down']} down are test examples: the gate "
            "needs one of each at least to compare versions. Annotate more answers."
        )
    if total < config["batch_size"]:
        objections.append(
            f"{total} examples are fewer than one batch of {config['batch_size']}: annotate more "
            "or choose a smaller batch."
        )
    active = project.runs.active().first()
    if active is not None:
        objections.append(f"Run {active.number} is in progress: wait for it or cancel it.")
    last = project.runs.filter(status=Run.Status.SUCCEEDED).newest_first().first()
    fresh = project.examples.all()
    if last is not None:
        fresh = fresh.filter(created_at__gt=last.created_at)
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
        minutes=_seconds(total * config["epochs"], last) / 60,
        new_examples=counted(fresh),
        left_out=totals.left_out,
        restored=totals.restored,
        left_out_people=totals.people,
        objections=tuple(objections),
        gate=forecast(
            gate_settings(project),
            prompts=prompts_available(project),
            ups=counts["test_up"],
            downs=counts["test_down"],
            learned=total + counts["validation_up"] + counts["validation_down"],
        ),
    )


def _seconds(examples: int, last: Run | None) -> float:
    """Return the expected duration, from the speed of the last run if there is one."""
    seconds_per_example = SECONDS_PER_EXAMPLE
    if last is not None:
        steps = last.metrics.order_by("-step").values_list("seconds", flat=True)[:STEPS_READ]
        spent, trained = sum(steps), len(steps) * last.config["batch_size"]
        if spent and trained:
            seconds_per_example = spent / trained
    return OVERHEAD_SECONDS + examples * seconds_per_example
