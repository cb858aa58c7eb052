"""Tests and intervals of the gate, over one value per prompt.

Answers to one prompt resemble each other, so a prompt is one observation however many answers it
has. All bounds are one-sided: a rule asks on which side of a border a mean lies.

- Measures without a known range (lengths, nats): the bootstrap of the studentised mean (Efron and
  Tibshirani 1993, section 12.5) and the sign-flip permutation test, inverted; the one that is less
  sure counts. Where most prompts have the same value, the bootstrap alone is far too sure: two
  positive values among 40 zeros would do. Below `EXACT` prompts it is the permutation test alone.
- Measures with a known range, such as shares: Student's t with pseudo-observations, as Agresti and
  Min (2005) add them, but so many that a sample without any difference gets the bound of the exact
  binomial test, 3/n (Hanley and Lippman-Hand 1983). The bootstrap would give it a width of zero.
  Where few prompts differ, that is too sure by up to a factor of two; so the score test of a share
  (Wilson 1927) has to agree.
- Areas under the ROC curve: their influence on each prompt (Obuchowski 1997), which makes an area a
  mean over prompts; better than chance is tested by permuting labels within and between prompts.
"""

import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:  # numpy is imported where it is used: most web processes never test anything
    import numpy as np
    from numpy.typing import NDArray

    Floats: TypeAlias = NDArray[np.float64]

RESAMPLES = 2000
#: Resamples that are in memory at one time, where each has all votes.
AT_ONCE = 100
#: Below this many prompts the bootstrap's quantiles are too rough.
EXACT = 12
#: From this many prompts on the mean's distribution is close enough to Student's.
LARGE = 500
#: Pseudo-observations of mean 0, and the sum of their squares in squares of the largest value.
_PSEUDO, _PSEUDO_SQUARES = 2, 3


@dataclass(frozen=True)
class Estimate:
    """A mean with its one-sided bounds at the level it was asked for; `n` prompts, and the standard
    deviation of one prompt's value."""

    value: float
    low: float
    high: float
    n: int
    deviation: float


class MeanTest:
    """Tests of the mean of `values`, one a prompt. `reach`: the largest possible |value|, if known.

    Same values and seed, same results. Needs at least two values.
    """

    def __init__(
        self, values: Sequence[float], *, reach: float | None = None, seed: int = 0
    ) -> None:
        import numpy as np

        if len(values) < 2:
            raise ValueError("a mean needs at least two values")
        self.values = np.asarray(values, dtype=np.float64)
        self.n = len(values)
        self.mean = float(self.values.mean())
        self.deviation = float(self.values.std(ddof=1))
        self._reach = reach
        self._seed = seed
        self._draws: Floats | None = None
        self._means: Floats | None = None
        if reach is not None:
            n = self.n + _PSEUDO
            self._centre = float(self.values.sum()) / n
            squares = float((self.values**2).sum()) + _PSEUDO_SQUARES * reach**2
            self._error = math.sqrt((squares / n - self._centre**2) / n)
        else:
            self._centre, self._error = self.mean, self.deviation / math.sqrt(self.n)

    @property
    def deviation_assumed(self) -> float:
        """Return the standard deviation of a prompt's value, not 0 where a few are equal."""
        return self.deviation if self._reach is None else self._error * math.sqrt(self.n + _PSEUDO)

    def p_above(self, border: float) -> float:
        """Return the p-value of "the mean is at most `border`"; small: it is above."""
        return self._p(border, above=True)

    def p_below(self, border: float) -> float:
        """Return the p-value of "the mean is at least `border`"; small: it is below."""
        return self._p(border, above=False)

    def estimate(self, level: float) -> Estimate:
        """Return the mean with bounds of which each is wrong with probability `level`."""
        low, high = self._bounds(level)
        return Estimate(self.mean, low, high, self.n, self.deviation)

    def _p(self, border: float, *, above: bool) -> float:
        if self._reach is None and self.n < EXACT:
            return self._p_of_parts(border, above=above)
        if self._error == 0:  # equal values
            return 0.0 if self.mean != border and (self.mean > border) == above else 1.0
        statistic = (self._centre - border) / self._error
        if self._student:
            p = student_cdf(-statistic if above else statistic, self.n - 1)
            return p if self._reach is None else max(p, self._p_of_share(border, above=above))
        draws = self._studentised()
        beyond = draws >= statistic if above else draws <= statistic
        p = (1 + float(beyond.sum())) / (1 + RESAMPLES)
        return max(p, self._p_of_parts(border, above=above))

    def _bounds(self, level: float) -> tuple[float, float]:
        import numpy as np

        if self._reach is None and self.n < EXACT:
            return self._bounds_of_parts(level)
        if self._student:
            half = student_quantile(1 - level, self.n - 1) * self._error
            low, high = self._centre - half, self._centre + half
        else:
            lower, upper = np.quantile(self._studentised(), [level, 1 - level])
            part_low, part_high = self._bounds_of_parts(level)
            low = min(part_low, self.mean - float(upper) * self._error)
            high = max(part_high, self.mean - float(lower) * self._error)
        if self._reach is not None:
            t = student_quantile(1 - level, self.n - 1)
            low = max(-self._reach, min(low, _share_bound(self.mean, self.n, t, self._reach)))
            high = min(self._reach, max(high, -_share_bound(-self.mean, self.n, t, self._reach)))
        return min(low, self.mean), max(high, self.mean)

    def _p_of_share(self, border: float, *, above: bool) -> float:
        """Return the p-value of the same hypothesis where all values are 0 or the largest possible
        one on the border's side: then the border says how much they vary."""
        reach = self._reach or 0.0
        error = math.sqrt(max(0.0, abs(border) * (reach - abs(border))) / self.n)
        if error == 0:
            return 0.0
        statistic = (self.mean - border) / error
        return student_cdf(-statistic if above else statistic, self.n - 1)

    def _p_of_parts(self, border: float, *, above: bool) -> float:
        """Return the p-value of "symmetric about a centre of at most `border`" (`above`), or of "at
        least".

        Turning the signs of some values about the border leaves a sum that is at least as large if
        the mean of those values is at most the border. So the test's p-value is the share of parts
        with such a mean, and its bounds are quantiles of these means (Hartigan 1969).
        """
        import numpy as np

        means = self._means_of_parts()
        tiny = 1e-12 * max(float(np.abs(self.values).max()), abs(border))
        beyond = means <= border + tiny if above else means >= border - tiny
        return (1 + float(beyond.sum())) / (1 + len(means))

    def _bounds_of_parts(self, level: float) -> tuple[float, float]:
        means = self._means_of_parts()
        beyond = math.floor(level * (1 + len(means))) - 1
        if beyond < 0:  # no data could reject: there is no bound
            return -math.inf, math.inf
        return float(means[beyond]), float(means[-1 - beyond])

    def _means_of_parts(self) -> "Floats":
        """Return the sorted means of all parts of the values but the empty one, or of so many
        random parts."""
        import numpy as np

        if self._means is None:
            if self.n < EXACT:
                parts = (np.arange(1, 2**self.n)[:, None] >> np.arange(self.n)) & 1
            else:
                parts = np.random.default_rng([self._seed, 1]).integers(0, 2, (RESAMPLES, self.n))
                parts = parts[parts.any(axis=1)]
            self._means = np.sort(parts @ self.values / parts.sum(axis=1))
        return self._means

    @property
    def _student(self) -> bool:
        return self._reach is not None or self.n >= LARGE

    def _studentised(self) -> "Floats":
        """Return (resampled mean − mean) / resampled standard error, one for each resample."""
        import numpy as np

        if self._draws is None:
            rng = np.random.default_rng(self._seed)
            drawn = self.values[rng.integers(0, self.n, size=(RESAMPLES, self.n))]
            error = drawn.std(axis=1, ddof=1) / math.sqrt(self.n)
            # a resample of equal values has no error of its own: it gets a tenth of the sample's
            error = np.maximum(error, max(self._error / 10, 1e-300))
            self._draws = (drawn.mean(axis=1) - self.mean) / error
        return self._draws


def _share_bound(mean: float, n: int, t: float, reach: float) -> float:
    """Return the lowest border b with (mean − b) ≤ t · √(|b| (reach − |b|) / n)."""
    square, constant = n + t * t, n * mean * mean
    for sign in (-1, 1):  # borders below 0 first
        linear = 2 * n * mean * sign + t * t * reach
        root = linear * linear - 4 * square * constant
        if linear > 0 and root >= 0:
            return sign * (linear - sign * math.sqrt(root)) / (2 * square)
    return mean


def student_cdf(t: float, df: int) -> float:
    """Return P(T ≤ t) of Student's distribution."""
    from scipy.special import stdtr

    return float(stdtr(df, t))


def student_quantile(p: float, df: int) -> float:
    """Return the quantile of Student's distribution."""
    from scipy.special import stdtrit

    return float(stdtrit(df, p))


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Return p-values adjusted for testing all of them (Holm 1979), in the given order."""
    ordered = sorted(p_values.items(), key=lambda pair: pair[1])
    adjusted, worst = {}, 0.0
    for rank, (name, p) in enumerate(ordered):
        worst = max(worst, min(1.0, (len(ordered) - rank) * p))
        adjusted[name] = worst
    return {name: adjusted[name] for name in p_values}


# -- areas under the ROC curve


@dataclass(frozen=True)
class Scored:
    """Examples with the score that a version gives them, their labels and their prompts."""

    scores: Sequence[float]
    labels: Sequence[bool]
    prompts: Sequence[Hashable]

    @property
    def fewest(self) -> int:
        """Return the size of the smaller class."""
        return min(sum(self.labels), len(self.labels) - sum(self.labels))

    @property
    def spread(self) -> float:
        """Return over how many prompts with equally many examples these would be spread as much
        (the effective sample size of Kish 1965)."""
        sizes = Counter(self.prompts).values()
        return sum(sizes) ** 2 / sum(size**2 for size in sizes)


def area(scores: Sequence[float], labels: Sequence[bool]) -> float:
    """Return P(a liked example scores higher than a disliked one); ties count half."""
    liked, _ = _placements(scores, labels)
    return float(liked.mean())


def area_by_prompt(scored: Scored) -> list[float]:
    """Return one value per prompt whose mean is the area, and whose spread gives its error."""
    import numpy as np

    liked, disliked = _placements(scored.scores, scored.labels)
    value = float(liked.mean())
    labels = np.asarray(scored.labels, dtype=bool)
    influence = np.empty(len(labels))
    influence[labels] = (liked - value) / len(liked)
    influence[~labels] = (disliked - value) / len(disliked)
    sums: dict[Hashable, float] = {}
    for prompt, part in zip(scored.prompts, influence, strict=True):
        sums[prompt] = sums.get(prompt, 0.0) + float(part)
    return [value + len(sums) * part for part in sums.values()]


def p_better_than_chance(scored: Scored, *, seed: int = 0) -> float:
    """Return the p-value of "scores say nothing about labels", one-sided.

    Labels of one prompt stay together, as its answers resemble each other: they are permuted within
    it, since the order of its answers says nothing, and as a block between prompts with the same
    number of examples. The first alone would find nothing where every prompt has one label only,
    the second alone where all have the same labels.
    """
    import numpy as np

    rng = np.random.default_rng(seed)
    ranks = _ranks(scored.scores)
    labels = np.asarray(scored.labels, dtype=float)
    rows: dict[Hashable, list[int]] = {}
    for row, prompt in enumerate(scored.prompts):
        rows.setdefault(prompt, []).append(row)
    by_size: dict[int, list[list[int]]] = {}
    for each in rows.values():
        by_size.setdefault(len(each), []).append(each)
    # the sum of ranks of liked examples orders permutations as the area does
    drawn = np.zeros((RESAMPLES // AT_ONCE, AT_ONCE))
    for blocks in by_size.values():
        own, score = labels[blocks], ranks[blocks]  # (prompts, examples of each)
        for sums in drawn:
            within = rng.permuted(np.tile(own, (AT_ONCE, 1, 1)), axis=2)
            order = rng.permuted(np.tile(np.arange(len(blocks)), (AT_ONCE, 1)), axis=1)
            between = np.take_along_axis(within, order[:, :, None], axis=1)
            sums += np.einsum("dpe,pe->d", between, score)
    found = float(labels @ ranks)
    return (1 + float((drawn >= found - 1e-9).sum())) / (1 + RESAMPLES)


def _placements(scores: Sequence[float], labels: Sequence[bool]) -> "tuple[Floats, Floats]":
    """Return for each liked example the share of disliked ones below it, and for each disliked one
    the share of liked ones above it."""
    import numpy as np

    values, liked = np.asarray(scores, dtype=np.float64), np.asarray(labels, dtype=bool)
    up, down = values[liked], values[~liked]
    wins = (up[:, None] > down[None, :]) + 0.5 * (up[:, None] == down[None, :])
    return wins.mean(axis=1), wins.mean(axis=0)


def _ranks(scores: Sequence[float]) -> "Floats":
    """Return mid-ranks."""
    import numpy as np

    _, inverse, counts = np.unique(
        np.asarray(scores, dtype=np.float64), return_inverse=True, return_counts=True
    )
    ends = np.cumsum(counts)
    middle: Floats = (ends - (counts - 1) / 2)[inverse]
    return middle


# -- how much would be enough


def prompts_needed(*, deviation: float, distance: float, level: float, power: float = 0.8) -> int:
    """Return for how many prompts a mean at `distance` from a border is found to be beyond it, with
    probability `power`."""
    quantile = NormalDist().inv_cdf
    root = (quantile(1 - level) + quantile(power)) * deviation / distance
    return max(2, math.ceil(root**2))


#: Pseudo-answers of the prior for each answer (trainer/evaluation/measures/injection.py).
_PHRASE_PRIOR = 0.2


def answers_to_see_phrase(*, share: float, z: float) -> int:
    """Return from how many answers of each version on a phrase that is in `share` of one version's,
    and in none of the other's, has a log-odds ratio with a z-score of `z` (Monroe, Colaresi, Quinn
    2008). All counts grow with the answers, so the score grows with their square root."""
    prior = _PHRASE_PRIOR * share
    answers = 1 + 2 * _PHRASE_PRIOR
    here, without = share + prior, max(answers - share - prior, prior)
    there, without_there = prior, answers - prior
    ratio = math.log(here / without) - math.log(there / without_there)
    variance = 1 / here + 1 / without + 1 / there + 1 / without_there
    return math.ceil(z**2 * variance / ratio**2)


def votes_needed(*, area: float, liked_share: float, level: float, power: float = 0.8) -> int:
    """Return how many votes show with probability `power` that ranking is better than chance, if
    the true area is `area` > 0.5 (variance of Hanley and McNeil 1982, one vote a prompt)."""
    quantile = NormalDist().inv_cdf
    first, second = area / (2 - area), 2 * area**2 / (1 + area)
    for votes in range(10, 100_000, 5):
        up = max(1.0, votes * liked_share)
        down = max(1.0, votes - up)
        variance = (
            area * (1 - area) + (up - 1) * (first - area**2) + (down - 1) * (second - area**2)
        ) / (up * down)
        null = (up + down + 1) / (12 * up * down)
        if area - 0.5 >= quantile(1 - level) * null**0.5 + quantile(power) * variance**0.5:
            return votes
    return 100_000
