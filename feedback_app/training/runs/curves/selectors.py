"""The metrics of a run as columns, as few as a plot needs."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

from feedback_app.training.models import Run
from feedback_app.training.stats.thinning import Series, indexes_kept

CURVES = (
    "loss",
    "kl",
    "kl_unclamped",
    "reward_desirable",
    "reward_undesirable",
    "completion_tokens",
)
#: Points of a plot: about two for each pixel of its width.
MOST_POINTS = 2_000
#: Rows that a download reads at once.
ROWS_READ = 2_000


@dataclass(frozen=True)
class Curves:
    """Columns of a run's metrics; of `total` steps those that a plot needs. `after` is the last
    step that was read."""

    steps: list[int]
    columns: dict[str, list[float | None]]
    total: int
    after: int

    def as_json(self) -> dict[str, Any]:
        return {"steps": self.steps, **self.columns, "total": self.total, "after": self.after}


def run_curves(run: Run, *, after: int) -> Curves:
    """Return the metrics of the steps after `after`, at most MOST_POINTS; extremes are kept."""
    rows = list(run.metrics.filter(step__gt=after).order_by("step").values_list("step", *CURVES))
    if not rows:
        return Curves([], {name: [] for name in CURVES}, 0, after)
    steps, *found = zip(*rows, strict=True)
    columns = dict(zip(CURVES, found, strict=True))
    kept = indexes_kept(drawn(columns), most=MOST_POINTS)
    return Curves(
        [steps[at] for at in kept],
        {name: [values[at] for at in kept] for name, values in columns.items()},
        len(rows),
        steps[-1],
    )


def metrics_csv(run: Run) -> Iterator[bytes]:
    """Yield the lines of a CSV file with every step; an empty cell is a value that it lacks."""
    names = ("step", *CURVES)
    rows = run.metrics.order_by("step").values_list(*names).iterator(chunk_size=ROWS_READ)
    for row in chain([names], rows):
        # numbers alone: nothing to quote, and a minus sign is no formula
        yield ",".join("" if value is None else str(value) for value in row).encode() + b"\r\n"


def drawn(columns: dict[str, Any]) -> list[Series]:
    """Return the lines of the page's plots; the margin is the difference of the rewards."""
    liked, disliked = columns["reward_desirable"], columns["reward_undesirable"]
    margin = [
        None if one is None or other is None else one - other
        for one, other in zip(liked, disliked, strict=True)
    ]
    return [columns["loss"], columns["kl_unclamped"], liked, disliked, margin]
