"""Early stopping: whether a run continues, and which adapter is kept.

At every probe the policy's distance to the base and its loss on validation examples are measured.
The adapter with the lowest validation loss is exported; without validation examples, the last
adapter whose KL is under the limit.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainer.errors import RunFailed
from trainer.events import EventLog
from trainer.training.checkpoint import save_best

#: A factor of e^10 on every token: the weights have diverged.
EXPLODED_NATS_PER_TOKEN = 10.0
ADVICE = "lower learning_rate or raise beta, and start a new run"
#: Probes of a run with a KL limit that has as many steps.
MIN_PROBES = 4

#: Validation losses that differ by less than this share of the best count as equal.
_EQUAL_SHARE = 0.005


@dataclass(frozen=True)
class Best:
    """The adapter that would be exported now: its step and its validation loss (None: none is
    measured); `worse` counts the probes since that were worse."""

    step: int
    loss: float | None = None
    worse: int = 0


@dataclass(frozen=True)
class Probe:
    """Measurements after a step: KL per token in nats on `answers` answers, and the loss and the
    ranking on validation examples."""

    step: int
    kl_per_token: float
    answers: int
    validation_loss: float | None
    validation_ranking: float | None = None


@dataclass(frozen=True)
class Limits:
    """Limits of a run: KL per token in nats, and how many worse probes in a row; None: no limit."""

    kl_brake: float | None
    patience: int | None


def ranking(rewards: Sequence[float], labels: Sequence[bool]) -> float | None:
    """Return how often an up has a higher reward than a down, in [0, 1]; a tie counts as half.

    The area under the ROC curve of the rewards (nats, of the examples with these labels): unlike a
    loss it does not depend on β, λ or z₀, so it compares runs of different losses. None without an
    example of each label.
    """
    values, up = torch.tensor(rewards, dtype=torch.float64), torch.tensor(labels, dtype=torch.bool)
    ups, downs = values[up].unsqueeze(1), values[~up].unsqueeze(0)
    if not ups.numel() or not downs.numel():
        return None
    return float(((ups > downs).double() + (ups == downs).double() / 2).mean())


def probe_interval(probe_every: int, *, kl_brake: float | None, total_steps: int) -> int:
    """Return the number of steps between two probes.

    With a KL limit a short run is probed more often than every `probe_every` steps. Otherwise its
    first probe would be at its end, where no earlier adapter can be kept.
    """
    if kl_brake is None:
        return probe_every
    return min(probe_every, math.ceil(total_steps / MIN_PROBES))


def judge(probe: Probe, best: Best | None, limits: Limits) -> tuple[Best, str | None]:
    """Return the best adapter so far and, where the run must end, the reason.

    Raises RunFailed when a figure is not finite, or when the first adapter is over the KL limit.
    """
    if not math.isfinite(probe.kl_per_token):
        raise RunFailed("the KL probe is not finite", step=probe.step, advice=ADVICE)
    if probe.validation_loss is not None and not math.isfinite(probe.validation_loss):
        raise RunFailed("the validation loss is not finite", step=probe.step, advice=ADVICE)
    if limits.kl_brake is not None and probe.kl_per_token > limits.kl_brake:
        over = (
            f"KL of {probe.kl_per_token:.2f} nats per token is over the brake of "
            f"{limits.kl_brake:g}"
        )
        if best is None:
            raise RunFailed(
                f"{over} and no earlier adapter was under it", step=probe.step, advice=ADVICE
            )
        return (
            best,
            f"stopped at step {probe.step}: {over}; the adapter of step {best.step} is kept",
        )
    if best is None or best.loss is None or probe.validation_loss is None:
        return Best(probe.step, probe.validation_loss), None
    if probe.validation_loss <= best.loss:
        return Best(probe.step, probe.validation_loss), None
    margin = abs(best.loss) * _EQUAL_SHARE
    best = replace(best, worse=best.worse + 1 if probe.validation_loss > best.loss + margin else 0)
    if limits.patience is not None and best.worse >= limits.patience:
        return best, (
            f"stopped at step {probe.step}: the loss on validation examples has risen from "
            f"{best.loss:.4f} to {probe.validation_loss:.4f} over {best.worse} probes; the adapter "
            f"of step {best.step} is kept. Fewer epochs or a lower learning_rate would do"
        )
    return best, None


class EarlyStopping:
    """Evaluate the probes of one run, keep the best adapter on disk and write the decision."""

    def __init__(
        self,
        directory: Path,
        limits: Limits,
        events: EventLog,
        *,
        masters: Mapping[str, Tensor],
        writes: bool,
    ) -> None:
        self.best: Best | None = None
        self._directory = directory
        self._limits = limits
        self._events = events
        self._masters = masters
        self._writes = writes

    def stops(self, probe: Probe) -> bool:
        """Record a probe; return whether the run must end here."""
        self._events.write(
            "probe",
            step=probe.step,
            kl_per_token=probe.kl_per_token,
            answers=probe.answers,
            validation_loss=probe.validation_loss,
            validation_ranking=probe.validation_ranking,
        )
        self.best, why = judge(probe, self.best, self._limits)
        if self.best.step == probe.step and self._writes:
            save_best(self._directory, self._masters, step=probe.step)
        if why is not None:
            self._events.write(
                "braked", step=probe.step, kl_per_token=probe.kl_per_token, message=why
            )
        return why is not None


def raise_if_diverged(
    *, step: int, loss: float, rewards: tuple[float, ...], tokens: int, advice: str = ADVICE
) -> None:
    """Raise RunFailed for a step whose figures are not finite or have diverged; `tokens` counts
    the completion tokens that the rewards (nats) sum over."""
    if not math.isfinite(loss) or not all(map(math.isfinite, rewards)):
        raise RunFailed("the loss is not a finite number", step=step, advice=advice)
    drift = sum(map(abs, rewards)) / tokens
    if drift > EXPLODED_NATS_PER_TOKEN:
        raise RunFailed(
            f"the policy exploded ({drift:.1f} nats per token away from the reference)",
            step=step,
            advice=advice,
        )


def best_from(raw: Mapping[str, Any] | None) -> Best | None:
    """Return a `Best` from its JSON form."""
    return None if raw is None else Best(**raw)
