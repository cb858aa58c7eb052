"""Measures of answers that need no person and no model, in any language, and their intervals.

Text is divided into segments at the word boundaries of Unicode (Unicode Standard Annex 29). In
scripts that are written without spaces most segments are single characters.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import regex
from numpy.typing import NDArray

_RESAMPLES = 1000
_SEGMENT = regex.compile(r"(?w)\b\w.*?\b")
#: Scripts written without spaces between words.
_UNSPACED = regex.compile(
    r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]\p{M}*"
)

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Metric:
    """A value with its 95 % interval and the number of measurements; None where
    there was nothing to measure."""

    value: float | None
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True)
class Segment:
    """A word, or a character of a script without spaces: `text` in lower case, and its place
    [start, end) in the original text."""

    text: str
    start: int
    end: int


def segments(text: str) -> list[Segment]:
    """Return the segments of a text that hold letters or digits, in their order."""
    return list(_segments(text))


def words(text: str) -> list[str]:
    """Return the segments of a text in lower case."""
    return [segment.text for segment in _segments(text)]


def repeats(text: str, length: int = 4) -> bool:
    """Return whether some run of `length` words occurs twice. A single character of a script
    without spaces counts as half a word: four of them are often one ordinary word."""
    found = words(text)
    runs = [run for start in range(len(found)) if (run := _run(found, start, length)) is not None]
    return len(set(runs)) < len(runs)


def distinct_bigrams(texts: Sequence[str]) -> float | None:
    """Return the share of different pairs of neighbouring words over all texts: falls when answers
    become one phrase."""
    pairs: list[tuple[str, str]] = []
    for text in texts:
        pairs += pairwise(words(text))
    return len(set(pairs)) / len(pairs) if pairs else None


def mean_over_prompts(values: Sequence[Sequence[float]], *, seed: int = 0) -> Metric:
    """Return the mean over prompts of the mean over each prompt's answers, with its bootstrap
    interval; `n` counts the answers.

    Prompts are resampled, not answers: answers to one prompt resemble each other, so an interval
    over answers would be too narrow.
    """
    return mean(
        [sum(answers) / len(answers) for answers in values if answers],
        seed=seed,
        n=sum(map(len, values)),
    )


def mean(values: Sequence[float], *, seed: int = 0, n: int | None = None) -> Metric:
    """Return a mean with its bootstrap interval; `n` is reported instead of the number of values
    where these are themselves means."""
    count = len(values) if n is None else n
    if not values:
        return Metric(None, None, None, count)
    rng = random.Random(seed)  # noqa: S311 - resampling, not a secret
    drawn = [_average(rng.choices(values, k=len(values))) for _ in range(_RESAMPLES)]
    return _with_interval(_average(values), drawn, count)


def ranking(
    rewards: Sequence[float], labels: Sequence[bool], prompts: Sequence[Any], *, seed: int = 0
) -> Metric:
    """P(a liked example has a higher reward than a disliked one), ties count half.

    All arguments have one entry per example. The interval comes from resampling `prompts`.
    """
    n = len(rewards)
    liked = np.array(labels, dtype=bool)
    if liked.all() or not liked.any():
        return Metric(None, None, None, n)
    _, levels = np.unique(np.array(rewards, dtype=np.float64), return_inverse=True)
    known = {prompt: number for number, prompt in enumerate(dict.fromkeys(prompts))}
    clusters = np.array([known[prompt] for prompt in prompts])
    rng = np.random.default_rng(seed)

    def resample() -> float | None:
        drawn = rng.integers(len(known), size=len(known))
        times = np.bincount(drawn, minlength=len(known))[clusters]
        return _auc(levels, liked, times.astype(np.float64))

    value = _auc(levels, liked, np.ones(n))
    # a resample may hold one class only, and says nothing then
    drawn = [found for found in _times(resample) if found is not None]
    return _with_interval(value, drawn, n)


def _segments(text: str) -> Iterator[Segment]:
    for match in _SEGMENT.finditer(text):
        yield Segment(match.group().lower(), match.start(), match.end())


def _run(found: Sequence[str], start: int, length: int) -> tuple[str, ...] | None:
    """Return the shortest run of segments from `start` that is `length` words long, if any."""
    reached = 0.0
    for end in range(start, len(found)):
        reached += 0.5 if _UNSPACED.fullmatch(found[end]) else 1.0
        if reached >= length:
            return tuple(found[start : end + 1])
    return None


def _times(resample: Callable[[], float | None]) -> list[float | None]:
    return [resample() for _ in range(_RESAMPLES)]


def _with_interval(value: float | None, drawn: Sequence[float], n: int) -> Metric:
    ordered = sorted(drawn)
    if not ordered:
        return Metric(value, None, None, n)
    low, high = int(0.025 * len(ordered)), max(0, int(0.975 * len(ordered)) - 1)
    return Metric(value, ordered[low], ordered[high], n)


def _auc(levels: NDArray[np.intp], liked: NDArray[np.bool_], times: Floats) -> float | None:
    """Return the share of (liked, disliked) pairs in order; `times` (n,) is how often each example
    counts, `levels` (n,) the rank of its reward, equal for ties. None without a pair."""
    size = int(levels.max()) + 1
    ups = np.bincount(levels[liked], weights=times[liked], minlength=size)
    downs = np.bincount(levels[~liked], weights=times[~liked], minlength=size)
    pairs = float(ups.sum() * downs.sum())
    below = np.cumsum(downs) - downs
    return float((ups * (below + downs / 2)).sum()) / pairs if pairs else None


def _average(values: Sequence[float]) -> float:
    return sum(values) / len(values)
