"""Is one of two versions better? A test that may be read after every single vote.

Of the comparisons that one side won, is a share other than half won by the first? An ordinary
interval, read daily until it looks good, errs far more often than it says. Here the likelihood of
what was seen, averaged over all shares p ~ U(0, 1), stands against its likelihood at one half:

    E = ∫ pʷ (1 − p)ˡ dp / 2⁻⁽ʷ⁺ˡ⁾ = B(w + 1, l + 1) · 2ʷ⁺ˡ

While the two are equally good, E is a martingale that starts at 1, so the chance that it ever
reaches 1/α is at most α, however often somebody looks (Ville's inequality; the mixture of Robbins
1970, used for A/B tests by Johari et al. 2022). The shares that E does not rule out, with p in the
place of one half, are an interval that holds at all times at once.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

ALPHA = 0.05
#: Beyond so many more comparisons, 'about N to go' is no help to anybody.
FAR = 10_000


class State(StrEnum):
    """What may be said now."""

    BETTER = "better"
    WORSE = "worse"
    OPEN = "open"


@dataclass(frozen=True)
class Reading:
    """The test after `wins` and `losses`: its state, the interval of the share of wins, and about
    how many more decided comparisons it would take if the share stayed as it is (None: too many to
    say, or decided already)."""

    state: State
    low: float
    high: float
    to_go: int | None


def log_evidence(wins: float, losses: float, share: float = 0.5) -> float:
    """log E against a true share of wins in (0, 1), in nats."""
    likelihood = wins * math.log(share) + losses * math.log1p(-share)
    # log B(wins + 1, losses + 1); scipy's betaln would add 60 MB to every web process
    log_beta = math.lgamma(wins + 1) + math.lgamma(losses + 1) - math.lgamma(wins + losses + 2)
    return log_beta - likelihood


def interval(wins: int, losses: int, *, alpha: float = ALPHA) -> tuple[float, float]:
    """Every share that was never ruled out at level α; it covers the true one at all times."""
    edge = 1e-12
    best = min(max(edge, wins / (wins + losses) if wins + losses else 0.5), 1 - edge)

    def beyond(share: float) -> float:
        return log_evidence(wins, losses, share) + math.log(alpha)

    # from its lowest point, at the share that was seen, log E rises to both sides
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


def read(wins: int, losses: int, *, alpha: float = ALPHA) -> Reading:
    """The test as it stands."""
    low, high = interval(wins, losses, alpha=alpha)
    if log_evidence(wins, losses) >= -math.log(alpha):
        return Reading(State.BETTER if wins > losses else State.WORSE, low, high, None)
    return Reading(State.OPEN, low, high, comparisons_to_go(wins, losses, alpha=alpha))


def comparisons_to_go(wins: int, losses: int, *, alpha: float = ALPHA) -> int | None:
    """Decided comparisons until E reaches 1/α if the share of wins stays; None beyond FAR."""
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
