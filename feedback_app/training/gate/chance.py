"""The chance that the next run's version passes the gate, from what became of earlier runs.

Beta-binomial: with Jeffreys' prior Beta(½, ½) and `passed` of n runs, the chance of the next one is
the mean of Beta(passed + ½, n − passed + ½), and its interval lies between quantiles of that
(Brown, Cai and DasGupta 2001). Nothing of the run itself is looked at: a project has too few runs
to learn what its settings do. How good such forecasts were is their Brier score.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from django.db.models import Q

from feedback_app.feedback.models import Project
from feedback_app.training.models import Adapter, GateOutcome, Run
from feedback_app.training.stats.beta import beta_quantile

#: Runs that a forecast needs, and the newest that it looks at: a project's data and rules change.
FEWEST_RUNS, MOST_RUNS = 5, 20
LEVEL = 0.95


@dataclass(frozen=True)
class Chance:
    """The chance to pass with its 95 % interval, from `runs` runs; None if they are too few.

    `brier` is the mean squared error of `forecasts` earlier forecasts: 0 is perfect, and always
    saying one half gets 0.25. None without one.
    """

    runs: int
    value: float | None = None
    low: float | None = None
    high: float | None = None
    forecasts: int = 0
    brier: float | None = None

    @property
    def fewest(self) -> int:
        return FEWEST_RUNS

    def as_json(self) -> dict[str, Any]:
        """Return what is stored with a run that is queued now."""
        stored = asdict(self)
        return {name: stored[name] for name in ("runs", "value", "low", "high")}


def chance(project: Project) -> Chance:
    """Return the chance of the project's next run, in one query.

    Left out are runs after an erasure, whose gate compares with the base, runs that ended without a
    version, and versions that people still judge.
    """
    judged = Q(pair_batch__isnull=False, pair_batch__decided_at=None)
    rows = (
        Adapter.objects.filter(project=project)
        .exclude(run__trigger__in=[Run.Trigger.ERASURE, Run.Trigger.WITHOUT])
        .exclude(judged)
        .order_by("-run__number")
        .values_list("gate_outcome", "run__forecast")[:MOST_RUNS]
    )
    found = [(outcome == GateOutcome.PASSED, stored) for outcome, stored in rows]
    forecasts = [
        (float(stored["value"]), passed)
        for passed, stored in found
        if stored and stored.get("value") is not None
    ]
    return chance_of([passed for passed, _ in found], forecasts)


def chance_of(passed: Sequence[bool], forecasts: Sequence[tuple[float, bool]]) -> Chance:
    """Return the chance after runs that passed or did not, with the score of earlier forecasts."""
    runs, score = len(passed), brier_score(forecasts)
    if runs < FEWEST_RUNS:
        return Chance(runs, forecasts=len(forecasts), brier=score)
    a, b = sum(passed) + 0.5, runs - sum(passed) + 0.5
    tail = (1 - LEVEL) / 2
    return Chance(
        runs,
        value=a / (a + b),
        # Jeffreys' interval, whose ends are closed where no run, or every run, passed
        low=0.0 if not any(passed) else beta_quantile(tail, a, b),
        high=1.0 if all(passed) else beta_quantile(1 - tail, a, b),
        forecasts=len(forecasts),
        brier=score,
    )


def brier_score(forecasts: Sequence[tuple[float, bool]]) -> float | None:
    """Return the mean of (chance − outcome)² (Brier 1950); None without a forecast."""
    if not forecasts:
        return None
    return sum((value - passed) ** 2 for value, passed in forecasts) / len(forecasts)
