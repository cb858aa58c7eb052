"""Sequential test of whether one of two versions is better, valid after every vote.

The null hypothesis: of the comparisons that one side won, the first side wins half. An ordinary
interval that is read repeatedly has a much higher error rate than stated. Here the likelihood of
the data, averaged over all shares p ~ U(0, 1), is divided by its likelihood at one half:

    E = ∫ pʷ (1 − p)ˡ dp / 2⁻⁽ʷ⁺ˡ⁾ = B(w + 1, l + 1) · 2ʷ⁺ˡ

Under the null hypothesis E is a martingale that starts at 1, so the probability that it ever
reaches 1/α is at most α, however often it is read (Ville's inequality; the mixture of Robbins
1970, used for A/B tests by Johari et al. 2022). The shares that E does not reject, with p instead
of one half, are a confidence interval that is valid at all times.

Numbers of wins may be fractions: a comparison that several people judged counts as the share x of
them that preferred the first side, x wins and 1 − x losses. As pˣ (1 − p)¹⁻ˣ is convex in x, its
mean is at most that of whole wins and losses with the same mean, so the bound holds.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

ALPHA = 0.05
#: Beyond this many more comparisons no estimate is shown.
FAR = 10_000


class State(StrEnum):
    """The state of the test."""

    BETTER = "better"
    WORSE = "worse"
    OPEN = "open"


@dataclass(frozen=True)
class Reading:
    """The test after `wins` and `losses`: its state, the interval of the share of wins, and the
    estimated number of further decided comparisons at the current share (None: too many, or
    decided)."""

    state: State
    low: float
    high: float
    to_go: int | None


def log_evidence(wins: float, losses: float, share: float = 0.5) -> float:
    """Return log E against a true share of wins in (0, 1), in nats."""
    likelihood = wins * math.log(share) + losses * math.log1p(-share)
    # log B(wins + 1, losses + 1); scipy's betaln would add 60 MB to every web process
    log_beta = math.lgamma(wins + 1) + math.lgamma(losses + 1) - math.lgamma(wins + losses + 2)
    return log_beta - likelihood


def interval(wins: float, losses: float, *, alpha: float = ALPHA) -> tuple[float, float]:
    """Return the interval of shares that are not rejected at level α, valid at all times."""
    edge = 1e-12
    best = min(max(edge, wins / (wins + losses) if wins + losses else 0.5), 1 - edge)

    def beyond(share: float) -> float:
        return log_evidence(wins, losses, share) + math.log(alpha)

    # log E has its minimum at the observed share and rises on both sides
    low = root(beyond, best, edge) if beyond(edge) > 0 > beyond(best) else 0.0
    high = root(beyond, best, 1 - edge) if beyond(1 - edge) > 0 > beyond(best) else 1.0
    return low, high


def root(function: Callable[[float], float], negative: float, positive: float) -> float:
    """Return where `function` changes its sign between two arguments, by bisection to 1e-12."""
    while abs(positive - negative) > 1e-12:
        middle = (negative + positive) / 2
        if function(middle) < 0:
            negative = middle
        else:
            positive = middle
    return (negative + positive) / 2


def read(wins: float, losses: float, *, alpha: float = ALPHA) -> Reading:
    """Return the current result of the test."""
    low, high = interval(wins, losses, alpha=alpha)
    if log_evidence(wins, losses) >= -math.log(alpha):
        return Reading(State.BETTER if wins > losses else State.WORSE, low, high, None)
    return Reading(State.OPEN, low, high, comparisons_to_go(wins, losses, alpha=alpha))


def comparisons_to_go(wins: float, losses: float, *, alpha: float = ALPHA) -> int | None:
    """Return the decided comparisons until E reaches 1/α at this share, or None beyond FAR."""
    seen = wins + losses
    share = wins / seen if seen else 0.5

    def decided(more: int) -> bool:
        total = seen + more
        return log_evidence(total * share, total * (1 - share)) >= -math.log(alpha)

    if not decided(FAR):
        return None
    low, high = 0, FAR
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if decided(middle) else (middle, high)
    return high
