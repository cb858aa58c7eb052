"""Training examples on the Kahneman–Tversky value curve of KTO, as chart coordinates."""

import math
from dataclasses import dataclass

from feedback_app.training.models import Run
from feedback_app.training.runs.fit import Fit

WIDTH, HEIGHT = 640, 260
#: Nats of r − z₀ that the chart shows on either side.
REACH = 12.0


@dataclass(frozen=True)
class Point:
    """One example at (x, y) of the chart."""

    x: float
    y: float
    desirable: bool


@dataclass(frozen=True)
class ValueCurve:
    """Two branches and the examples on them. Value 0 to 1 goes upwards."""

    liked_path: str
    disliked_path: str
    points: list[Point]
    well_placed: int
    total: int
    width: int = WIDTH
    height: int = HEIGHT


def value_curve(run: Run, fit: Fit) -> ValueCurve | None:
    """Return the curve, or None before the run has rewards. σ(β(r−z₀)); disliked: σ(β(z₀−r))."""
    if not fit.total:
        return None
    beta = float(run.config.get("beta", 0.1))
    return ValueCurve(
        liked_path=_path(beta, sign=1),
        disliked_path=_path(beta, sign=-1),
        points=[point_of(gap, desirable, beta=beta) for gap, desirable in fit.gaps],
        well_placed=fit.well_placed,
        total=fit.total,
    )


def point_of(gap: float, desirable: bool, *, beta: float) -> Point:
    """Return the place of an example with r − z₀ = `gap` nats."""
    return Point(*_place(gap, beta, 1 if desirable else -1), desirable)


def _place(gap: float, beta: float, sign: int) -> tuple[float, float]:
    gap = max(-REACH, min(REACH, gap))
    value = 1 / (1 + math.exp(-sign * beta * gap))
    return round(WIDTH * (gap + REACH) / (2 * REACH), 1), round(HEIGHT * (1 - value), 1)


def _path(beta: float, *, sign: int) -> str:
    steps = [_place(-REACH + i * REACH / 30, beta, sign) for i in range(61)]
    return "M" + " ".join(f"{x} {y}" for x, y in steps)
