"""What a judge's choices in both orders say: of one pair, and of its agreement with people."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from feedback_app.training.gate.statistics import MeanTest

#: Which of a pair's answers the judge chose in one order; None: it gave no valid answer.
Chosen = Literal["first", "second", "tie"] | None
#: Each bound of κ is wrong with this probability: the interval has 95 %.
TAIL = 0.025


@dataclass(frozen=True)
class Agreement:
    """Cohen's κ between a judge and people, with a 95 % interval, over `pairs`. κ is None where
    fewer than two pairs were answered."""

    pairs: int
    kappa: float | None = None
    low: float | None = None
    high: float | None = None


def counts(kappa: float | None, low: float | None, minimum: float) -> bool:
    """Return whether a judge agrees with people enough: by κ, and surely by more than chance."""
    return kappa is not None and low is not None and kappa >= minimum and low > 0


def preference(chosen: Sequence[Chosen]) -> float | None:
    """Return 1 if the first answer was chosen in both orders, 0 if the second was, else 0.5.

    A judge that prefers a position thus prefers no answer. None if an order has no valid answer.
    """
    if None in chosen:
        return None
    if set(chosen) == {"first"}:
        return 1.0
    return 0.0 if set(chosen) == {"second"} else 0.5


def agreement(pairs: Sequence[Sequence[Chosen]]) -> Agreement:
    """Return Cohen's κ (1960) of the judge's choices, where people chose `first` in every pair.

    A pair in one order is one object that both put into a class: position A, position B or a tie.
    As every pair is shown in both orders, people chose A in half of them and no tie, so the
    agreement by chance is (1 − t) / 2, t the judge's share of ties. A judge that always chooses
    one position, or always a tie, has κ = 0.

    The interval is that of the mean of each pair's influence, which lies in [−1, 1]: a pair is one
    observation. Pairs without a valid answer in both orders are left out.
    """
    valid = [chosen for chosen in pairs if None not in chosen]
    if len(valid) < 2:
        return Agreement(len(valid))
    agreed = [chosen.count("first") / len(chosen) for chosen in valid]
    ties = [chosen.count("tie") / len(chosen) for chosen in valid]
    share, tied = sum(agreed) / len(valid), sum(ties) / len(valid)
    kappa = (2 * share - 1 + tied) / (1 + tied)
    influence = [
        (2 * a - 1 + t + kappa * (tied - t)) / (1 + tied) for a, t in zip(agreed, ties, strict=True)
    ]
    found = MeanTest(influence, reach=1).estimate(TAIL)
    return Agreement(len(valid), kappa, found.low, found.high)
