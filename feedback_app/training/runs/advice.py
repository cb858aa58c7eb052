"""Warnings about the curves of a run. Pure functions over its metrics."""

from collections.abc import Sequence
from dataclasses import dataclass

from feedback_app.training.models import RunMetric

#: Steps that are averaged: single steps of small batches are noisy.
WINDOW = 6


@dataclass(frozen=True)
class Advice:
    """A warning and what to do about it."""

    title: str
    text: str


def run_advice(metrics: Sequence[RunMetric], *, kl_brake: float | None) -> list[Advice]:
    """Return warnings about the latest steps, most serious first. `metrics` is in step order;
    `kl_brake` is None where it is off."""
    if len(metrics) < WINDOW:
        return []
    recent = metrics[-WINDOW:]
    step = metrics[-1].step
    ups = _mean([m.reward_desirable for m in recent])
    downs = _mean([m.reward_undesirable for m in recent])
    advice = []
    if ups is not None and downs is not None and ups < -1 and downs < -1:
        advice.append(
            Advice(
                "Both rewards are falling.",
                f"By step {step} the model has moved away from liked answers too "
                f"({ups:+.1f} nats). If that continues, cancel and lower the learning rate or "
                "raise β.",
            )
        )
    if all(m.kl_unclamped < -2 for m in recent):
        advice.append(
            Advice(
                "The reference point sits at its clamp.",
                f"The unclamped KL is {recent[-1].kl_unclamped:+.1f}: every answer has become "
                "less likely, which is how a collapse begins. A higher β holds the model back.",
            )
        )
    tokens = _mean([m.completion_tokens for m in recent]) or 0
    if kl_brake is not None and tokens and recent[-1].kl > kl_brake * tokens:
        advice.append(
            Advice(
                "The model is far from its base.",
                f"KL is {recent[-1].kl / tokens:.2f} nats per token; the brake is at {kl_brake:g}.",
            )
        )
    if ups is not None and downs is not None and step > 20 and ups <= downs:
        advice.append(
            Advice(
                "Liked and disliked answers get the same rewards.",
                "After twenty steps liked answers should have the higher reward. More examples, "
                "or clearer guidelines, help more than more epochs.",
            )
        )
    return advice


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
