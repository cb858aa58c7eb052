"""Up-rates and their differences, with intervals over prompts and seeds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DRAWS = 4_000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def shown(self) -> bool:
        """Whether the interval excludes zero."""
        return self.low > 0 or self.high < 0


def liked(texts: Sequence[Sequence[str]], likes: Callable[[str], bool]) -> NDArray[np.float64]:
    """Return which answers the rule likes, as 0 and 1 of shape (seeds, prompts)."""
    return np.array([[float(likes(text)) for text in of_seed] for of_seed in texts])


def mean(values: NDArray[np.float64], *, seed: int = 0) -> Estimate:
    """Return the mean of values (seeds, prompts) with a percentile bootstrap interval.

    Prompts and seeds are drawn anew, independently of each other, as both are samples: answers to
    one prompt are alike, and so are those of one adapter (Owen 2007, *The pigeonhole bootstrap*).
    """
    rng = np.random.default_rng(seed)
    seeds, prompts = values.shape
    # how often each draw has each seed and each prompt
    rows = rng.multinomial(seeds, np.full(seeds, 1 / seeds), DRAWS)
    columns = rng.multinomial(prompts, np.full(prompts, 1 / prompts), DRAWS)
    means = ((rows @ values) * columns).sum(axis=1) / values.size
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Estimate(float(values.mean()), float(low), float(high))
