"""How a run's examples fit the trained model: what its page shows, kept when the run ends."""

import heapq
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from feedback_app.db import bounded_count
from feedback_app.training.models import Run

#: Examples on the value curve, and in the list of those that fit worst.
POINTS = 400
MISFITS = 10
#: Primary key, reward, reference point and label of a snapshot's item.
Row = tuple[int, float, float | None, bool]


@dataclass(frozen=True)
class Fit:
    """`gaps` are pairs of r − z₀ in nats and the label; `misfits` are keys of items whose reward
    contradicts the label most, worst first; `well_placed` of `total` are on their label's side."""

    gaps: list[tuple[float, bool]]
    misfits: list[int]
    well_placed: int
    total: int

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def fit_of_rows(rows: Iterable[Row]) -> Fit:
    """Return the summary of the items that have a reward."""
    found = [(pk, reward - (point or 0.0), liked) for pk, reward, point, liked in rows]
    wrong = ((-gap if liked else gap, pk) for pk, gap, liked in found)
    every = max(1, len(found) // POINTS)
    return Fit(
        gaps=[(gap, liked) for _, gap, liked in found[::every]],
        misfits=[pk for by, pk in heapq.nlargest(MISFITS, wrong) if by > 0],
        well_placed=sum((gap > 0) == liked for _, gap, liked in found),
        total=len(found),
    )


def fit_of_run(run: Run) -> Fit:
    """Return what was kept, or for runs that ended before it was, the summary of the first
    `bounded_count.COUNTED` items."""
    if run.fit:
        return Fit(**run.fit)
    rows = run.snapshot.items.filter(reward__isnull=False).order_by("completion")
    fields = rows.values_list("pk", "reward", "reference_point", "desirable")
    return fit_of_rows(fields[: bounded_count.COUNTED])  # type: ignore[arg-type]  # reward is set
