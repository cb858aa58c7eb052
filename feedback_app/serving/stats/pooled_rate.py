"""The share of ups over all answers, estimated from the votes on some of them.

People choose whether to vote, and some groups vote more than others. The estimate weights each
cell, a channel and user group, by the answers that it received (post-stratification; Gelman and
Hill 2007, chapter 14) and pools the cells' rates partially, as a hierarchical Beta-Binomial model
does (Gelman et al., *Bayesian Data Analysis*, 3rd ed., section 5.3):

- Within a cell the rates of people differ. Their intraclass correlation ρ is estimated by analysis
  of variance over all cells, and a person's n votes count as n / (1 + (n − 1)ρ) votes, which is the
  estimator of Kleinman 1973: somebody who votes a hundred times does not decide the figure.
- The cells' rates are Beta(MK, (1 − M)K): a cell with few votes is shrunk towards M. M is estimated
  from the votes; K has a prior and is integrated over a grid, so that the interval contains the
  uncertainty about it.

Within a cell, whether somebody votes must not depend on their opinion: no weighting can correct
for that. Plain arithmetic, so that web processes need no scipy.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from feedback_app.serving.stats.wilson import Z

#: Before there are data, ρ is this, with the weight of so many people.
PRIOR_CORRELATION, PRIOR_PEOPLE = 0.1, 4
LARGEST_CORRELATION = 0.95
#: The grid over φ = 1 / (K + 1), the share of the variance that is between cells.
GRID = tuple((step + 0.5) / 20 for step in range(20))


@dataclass(frozen=True)
class Voters:
    """People of a cell with equally many votes: `ups` is the sum of their ups, `ups_squared` the
    sum of the squares."""

    votes: int
    people: int
    ups: int
    ups_squared: int


@dataclass(frozen=True)
class Cell:
    """A channel and user group: the answers that it received, and the votes on some of them."""

    answers: int
    voters: tuple[Voters, ...] = ()

    @property
    def people(self) -> int:
        return sum(group.people for group in self.voters)

    @property
    def votes(self) -> int:
        return sum(group.votes * group.people for group in self.voters)

    @property
    def ups(self) -> int:
        return sum(group.ups for group in self.voters)


@dataclass(frozen=True)
class Effective:
    """A cell with its people's correlation taken out: `votes` independent votes with this rate."""

    weight: float
    votes: float
    rate: float


@dataclass(frozen=True)
class Pooled:
    """An estimated share and its 95 % interval, within [0, 1]."""

    share: float
    low: float
    high: float


def pooled_rate(cells: Sequence[Cell]) -> Pooled | None:
    """Return the share of ups over the answers of all cells, or None without answers or votes."""
    answers = sum(cell.answers for cell in cells)
    if not answers or not any(cell.votes for cell in cells):
        return None
    correlation = correlation_of(cells)
    seen = [effective(cell, answers=answers, correlation=correlation) for cell in cells]
    found = [at_spread(seen, spread) for spread in GRID]
    top = max(log for log, _, _ in found)
    weights = [math.exp(log - top) for log, _, _ in found]
    total = sum(weights)
    mean = sum(w * m for w, (_, m, _) in zip(weights, found, strict=True)) / total
    variance = (
        sum(w * (v + (m - mean) ** 2) for w, (_, m, v) in zip(weights, found, strict=True)) / total
    )
    # symmetric in log odds, so that the interval stays within [0, 1]
    log_odds, half = math.log(mean / (1 - mean)), Z * math.sqrt(variance) / (mean * (1 - mean))
    return Pooled(mean, logistic(log_odds - half), logistic(log_odds + half))


def correlation_of(cells: Sequence[Cell]) -> float:
    """Return ρ, the intraclass correlation of votes of one person, in [0, LARGEST_CORRELATION]."""
    between = within = size = 0.0
    free_between = free_within = 0
    for cell in cells:
        if cell.people == 0:
            continue
        explained = sum(group.ups_squared / group.votes for group in cell.voters)
        between += explained - cell.ups**2 / cell.votes
        within += cell.ups - explained
        free_between += cell.people - 1
        free_within += cell.votes - cell.people
        squares = sum(group.people * group.votes**2 for group in cell.voters)
        size += cell.votes - squares / cell.votes
    found = 0.0
    if free_between and free_within:
        mean_between, mean_within = between / free_between, within / free_within
        spread = mean_between + (size / free_between - 1) * mean_within
        found = (mean_between - mean_within) / spread if spread > 0 else 0.0
    elif free_within == 0:
        free_between = 0  # one vote each: nothing is known about ρ, and it does not matter
    people = free_between + PRIOR_PEOPLE
    mixed = (free_between * found + PRIOR_PEOPLE * PRIOR_CORRELATION) / people
    return min(max(mixed, 0.0), LARGEST_CORRELATION)


def effective(cell: Cell, *, answers: int, correlation: float) -> Effective:
    """Return the cell as independent votes; `answers` is the sum over all cells."""
    votes = ups = 0.0
    for group in cell.voters:
        each = 1 / (1 + (group.votes - 1) * correlation)
        votes += each * group.votes * group.people
        ups += each * group.ups
    return Effective(cell.answers / answers, votes, ups / votes if votes else 0.0)


def at_spread(cells: Sequence[Effective], spread: float) -> tuple[float, float, float]:
    """Return the log of likelihood and prior of φ = `spread`, and the share's mean and variance."""
    strength = 1 / spread - 1
    known = [cell for cell in cells if cell.votes]
    weights = [cell.votes * (strength + 1) / (cell.votes + strength) for cell in known]
    total = sum(weights) + 1
    centre = (
        sum(w * c.rate for w, c in zip(weights, known, strict=True)) + 0.5
    ) / total  # with half an up and half a down
    log = 2 * math.log(1 - spread)  # the prior: Beta(1, 3)
    log += sum(log_marginal(cell, centre * strength, (1 - centre) * strength) for cell in known)
    mean = variance = from_centre = 0.0
    for cell in cells:
        own = cell.votes / (cell.votes + strength)
        rate = own * cell.rate + (1 - own) * centre
        mean += cell.weight * rate
        variance += cell.weight**2 * rate * (1 - rate) / (cell.votes + strength + 1)
        from_centre += cell.weight * (1 - own)
    return log, mean, variance + from_centre**2 * centre * (1 - centre) / total


def log_marginal(cell: Effective, a: float, b: float) -> float:
    """Return the log-likelihood of a cell's votes, its rate being Beta(a, b)."""
    ups, downs = cell.votes * cell.rate, cell.votes * (1 - cell.rate)
    return log_beta(a + ups, b + downs) - log_beta(a, b)


def log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def logistic(log_odds: float) -> float:
    if log_odds < -700:
        return 0.0
    return 1 / (1 + math.exp(-log_odds))
