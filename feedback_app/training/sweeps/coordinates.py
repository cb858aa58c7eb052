"""The parallel coordinates of a sweep: one axis for each setting and one for the measure, one line
for each trial. Drawn by templates/training/_coordinates.html as SVG."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from feedback_app.training.models import Sweep
from feedback_app.training.runs.settings import BY_NAME
from feedback_app.training.sweeps.probes import measure_of
from feedback_app.training.sweeps.selectors import Trial
from feedback_app.training.sweeps.space import LOGARITHMIC

#: Of the drawing, in its own units.
WIDTH, HEIGHT, LEFT, TOP = 760, 220, 70, 40


@dataclass(frozen=True)
class Axis:
    """A vertical line at `x`, with (y, label) of its ends, or of each choice."""

    label: str
    x: float
    ticks: list[tuple[float, str]]


@dataclass(frozen=True)
class Line:
    """A trial's way through the axes, as the points of a polyline."""

    trial: Trial
    points: str
    best: bool


@dataclass(frozen=True)
class Coordinates:
    axes: list[Axis]
    lines: list[Line]
    top: int = TOP
    bottom: int = TOP + HEIGHT


def coordinates(sweep: Sweep, trials: Sequence[Trial], best: Trial | None) -> Coordinates | None:
    """Return the drawing; None before two trials are measured."""
    measured = [trial for trial in trials if trial.value is not None]
    if len(measured) < 2:
        return None
    names = list(sweep.space)
    gap = WIDTH / len(names)
    scales = [_scale(name, [trial.settings[name] for trial in measured]) for name in names]
    loss = measure_of(sweep) == "loss"
    result = _Numbers([float(t.value or 0.0) for t in measured], logarithmic=False, falling=loss)
    axes = [
        Axis(BY_NAME[name].label, LEFT + at * gap, scale.ticks())
        for at, (name, scale) in enumerate(zip(names, scales, strict=True))
    ]
    axes.append(
        Axis("Validation loss" if loss else "Validation ranking", LEFT + WIDTH, result.ticks())
    )
    lines = []
    for trial in measured:
        heights = [s.y(trial.settings[name]) for name, s in zip(names, scales, strict=True)]
        heights.append(result.y(trial.value))
        points = " ".join(f"{axis.x:.1f},{y:.1f}" for axis, y in zip(axes, heights, strict=True))
        lines.append(Line(trial, points, best=best is not None and trial.run == best.run))
    lines.sort(key=lambda line: line.best)  # the best one is drawn over the others
    return Coordinates(axes, lines)


def _scale(name: str, values: list[Any]) -> "_Numbers | _Choices":
    if BY_NAME[name].bounds is None:
        labels = dict(BY_NAME[name].choices)
        return _Choices([key for key in labels if key in values], labels)
    numbers = [float(value) for value in values if value is not None]
    return _Numbers(numbers, logarithmic=name in LOGARITHMIC and min(numbers, default=0) > 0)


class _Numbers:
    """Numbers from the bottom up; `falling`: the lowest one is at the top."""

    def __init__(self, values: list[float], *, logarithmic: bool, falling: bool = False) -> None:
        self._log = logarithmic
        self._falling = falling
        self._low, self._high = min(values, default=0.0), max(values, default=0.0)

    def y(self, value: Any) -> float:
        if value is None or self._low == self._high:
            return TOP + HEIGHT / 2
        low, high, at = self._low, self._high, float(value)
        if self._log:
            low, high, at = math.log(low), math.log(high), math.log(at)
        share = (at - low) / (high - low)
        return TOP + HEIGHT * (share if self._falling else 1 - share)

    def ticks(self) -> list[tuple[float, str]]:
        return [(self.y(value), f"{value:.3g}") for value in sorted({self._low, self._high})]


class _Choices:
    """Choices at equal distances, in the order of the form."""

    def __init__(self, keys: list[str], labels: dict[str, str]) -> None:
        self._keys, self._labels = keys, labels

    def y(self, value: Any) -> float:
        if len(self._keys) < 2 or value not in self._keys:
            return TOP + HEIGHT / 2
        return TOP + HEIGHT * (1 - self._keys.index(value) / (len(self._keys) - 1))

    def ticks(self) -> list[tuple[float, str]]:
        return [(self.y(key), self._labels[key]) for key in self._keys]
