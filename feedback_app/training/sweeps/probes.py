"""What a run measured on its validation examples, and which of its adapters that chooses.

Nothing here has seen a test example: the trainer measures validation.jsonl, and test.jsonl is
written for the gate alone.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

from feedback_app.training.models import Run, Sweep
from feedback_app.training.sweeps.space import LOSS_SCALE

#: Probes that are kept of a run; of more, every second one.
MOST_PROBES = 200

Measure = Literal["loss", "ranking"]


class Probe(NamedTuple):
    """A probe after a step: the validation loss, and the ranking of ups above downs in [0, 1], None
    where there are no downs."""

    step: int
    loss: float
    ranking: float | None

    def score(self, measure: Measure) -> float | None:
        """Return the measure so that lower is better."""
        if measure == "loss":
            return self.loss
        return None if self.ranking is None else -self.ranking


def probes_of(run: Run) -> list[Probe]:
    """Return the probes of a run in order."""
    return [Probe(*stored) for stored in run.probes or []]


def validation_loss(run: Run) -> float | None:
    """Return the validation loss of the adapter that a run keeps; None if it was not measured."""
    kept = kept_of(probes_of(run))
    return None if kept is None else kept.loss


def probes_with(stored: Any, event: Mapping[str, Any]) -> list[list[Any]]:
    """Return a run's stored probes with the one of this event; a resumed run repeats steps."""
    step = event["step"]
    kept = [probe for probe in stored or [] if probe[0] < step]
    kept.append([step, event["validation_loss"], event.get("validation_ranking")])
    if len(kept) <= MOST_PROBES:
        return kept
    best = min(kept, key=lambda probe: probe[1])
    return [probe for at, probe in enumerate(kept) if (len(kept) - at) % 2 or probe is best]


def measure_of(sweep: Sweep) -> Measure:
    """Return by what the trials of a sweep are compared."""
    return measure_for(sweep.space)


def measure_for(names: Iterable[str]) -> Measure:
    """Return by what trials are compared that differ in these settings: their validation losses
    where these are on one scale."""
    return "ranking" if set(names) & set(LOSS_SCALE) else "loss"


def kept_of(probes: Iterable[Probe]) -> Probe | None:
    """Return the probe whose adapter the trainer keeps: that with the lowest loss."""
    return min(probes, key=lambda probe: probe.loss, default=None)
