"""Metrics of the engine: counters, and durations in Prometheus histograms."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

#: From one step of a small model to a long prompt behind a full queue.
SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
#: Limit of adapter names with failure counts, since requests may contain any name.
MAX_NAMES = 256


class Histogram:
    """How many observations were at most each bound. One thread writes, others may read."""

    def __init__(self, bounds: Sequence[float] = SECONDS) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def lines(self, name: str, about: str) -> list[str]:
        """In Prometheus' text format."""
        lines, total = [f"# HELP {name} {about}", f"# TYPE {name} histogram"], 0
        for bound, count in zip((*self._bounds, "+Inf"), self._counts, strict=True):
            total += count
            lines.append(f'{name}_bucket{{le="{bound}"}} {total}')
        return [*lines, f"{name}_sum {self._sum:.6f}", f"{name}_count {total}"]


@dataclass
class EngineMetrics:
    """All metrics. The model's thread writes all but loads and refusals."""

    counters: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)  # by adapter or base
    first_token: Histogram = field(default_factory=Histogram)
    token_gap: Histogram = field(default_factory=Histogram)
    load: Histogram = field(default_factory=Histogram)
    step_seconds: float = 0.0

    def failed(self, model: str) -> None:
        """Count a failed answer of this model, or a failed load of its adapter."""
        known = model in self.failures or len(self.failures) < MAX_NAMES
        self.failures[model if known else "others"] += 1
