"""How often each person is right, where the truth is mostly unknown: Dawid and Skene 1979.

Each person has two probabilities: to say up where up is right, and down where down is right. With
them the votes on an item give the probability that it deserves an up, and with those probabilities
the two can be counted; expectation maximisation repeats both steps until nothing changes. Items
whose verdict is known (gold, decided) anchor it. Beta priors keep people with few votes close to
what is usual, and the posterior gives the uncertainty.

The package crowd-kit has the algorithm too; docs/log.md says why it is not used.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    # imported in the function that uses it: other processes need no numpy (25 MB)
    import numpy as np

    Floats = np.ndarray[Any, np.dtype[np.float64]]

#: The Beta prior of both probabilities: a mean of 0.8 with the weight of five votes.
PRIOR_RIGHT, PRIOR_WRONG = 4.0, 1.0
ROUNDS = 100
#: The change of an item's probability below which the estimate is finished.
SETTLED = 1e-4
#: The 97.5 % quantile of the standard normal distribution.
Z = 1.959963984540054


@dataclass(frozen=True)
class Verdicts:
    """Votes as columns of equal length: `item` and `person` count from 0, `up` is 0 or 1.

    `truth` has a value per item: 1 (up), 0 (down), or NaN where it is unknown.
    """

    item: "np.ndarray[Any, np.dtype[np.int64]]"
    person: "np.ndarray[Any, np.dtype[np.int64]]"
    up: "Floats"
    truth: "Floats"


@dataclass(frozen=True)
class Accuracy:
    """A person's balanced accuracy, the mean of both probabilities, with its 95 % interval.

    0.5 is chance, also for somebody who always says the same; less is worse than chance.
    """

    value: float
    low: float
    high: float


def accuracies(verdicts: Verdicts, *, people: int) -> list[Accuracy]:
    """Return the accuracy of persons 0 to `people` − 1."""
    import numpy as np

    known = ~np.isnan(verdicts.truth)
    up = majority(verdicts)
    counts = counts_of(verdicts, up, people)
    for _ in range(ROUNDS):
        new = probabilities(verdicts, counts, prevalence=float(up.mean()) if up.size else 0.5)
        new[known] = verdicts.truth[known]
        change = float(np.abs(new - up).max(initial=0))
        up = new
        counts = counts_of(verdicts, up, people)
        if change < SETTLED:
            break
    return [balanced(*(float(count[person]) for count in counts)) for person in range(people)]


def majority(verdicts: Verdicts) -> "Floats":
    """Return each item's share of ups, or its known verdict, shape (items,)."""
    import numpy as np

    items = verdicts.truth.size
    votes = np.bincount(verdicts.item, minlength=items)
    ups = np.bincount(verdicts.item, weights=verdicts.up, minlength=items)
    share: Floats = (ups + 0.5) / (votes + 1)
    known = ~np.isnan(verdicts.truth)
    share[known] = verdicts.truth[known]
    return share


def counts_of(verdicts: Verdicts, up: "Floats", people: int) -> "tuple[Floats, ...]":
    """Return each person's expected numbers, with the prior: right ups, wrong downs (up was
    right), right downs, wrong ups; each of shape (people,)."""
    import numpy as np

    deserved = up[verdicts.item]

    def total(weights: "Floats", prior: float) -> "Floats":
        counted = np.bincount(verdicts.person, weights=weights, minlength=people)
        return np.asarray(prior + counted, dtype=np.float64)

    return (
        total(deserved * verdicts.up, PRIOR_RIGHT),
        total(deserved * (1 - verdicts.up), PRIOR_WRONG),
        total((1 - deserved) * (1 - verdicts.up), PRIOR_RIGHT),
        total((1 - deserved) * verdicts.up, PRIOR_WRONG),
    )


def probabilities(
    verdicts: Verdicts, counts: "tuple[Floats, ...]", *, prevalence: float
) -> "Floats":
    """Return the probability that each item deserves an up, shape (items,)."""
    import numpy as np

    right_up, wrong_down, right_down, wrong_up = counts
    says_up = right_up / (right_up + wrong_down), wrong_up / (wrong_up + right_down)
    for_up = np.log(says_up[0] / says_up[1])[verdicts.person]
    for_down = np.log((1 - says_up[0]) / (1 - says_up[1]))[verdicts.person]
    evidence = np.where(verdicts.up > 0, for_up, for_down)
    share = min(max(prevalence, 0.01), 0.99)
    log_odds = math.log(share / (1 - share)) + np.bincount(
        verdicts.item, weights=evidence, minlength=verdicts.truth.size
    )
    odds: Floats = 1 / (1 + np.exp(-np.clip(log_odds, -50, 50)))
    return odds


def balanced(right_up: float, wrong_down: float, right_down: float, wrong_up: float) -> Accuracy:
    """Return the mean of two Beta posteriors with an interval that is symmetric in log odds."""
    value = variance = 0.0
    for right, wrong in ((right_up, wrong_down), (right_down, wrong_up)):
        total = right + wrong
        value += right / total / 2
        variance += right * wrong / (total**2 * (total + 1)) / 4
    log_odds, half = math.log(value / (1 - value)), Z * math.sqrt(variance) / (value * (1 - value))
    return Accuracy(
        value, 1 / (1 + math.exp(half - log_odds)), 1 / (1 + math.exp(-half - log_odds))
    )
