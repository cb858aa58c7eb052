"""Metrics of answers that need no person: counts, the same for every adapter."""

import math
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

_Z95 = 1.959963984540054
_RESAMPLES = 1000
_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
_SUFFIXES = (
    "ations",
    "ation",
    "ings",
    "ing",
    "ies",
    "ied",
    "ers",
    "ed",
    "er",
    "es",
    "ly",
    "s",
    "e",
    "y",
)
# Words without content: sharing them does not make an answer relevant.
_STOPWORDS = frozenset(
    re.findall(
        r"\S+",
        """a about after all also an and any are as ask at be because been before being best better
    between but by can could did do does doing done each every explain few for from get give go
    good had has have he help her here him his how i i'd i'm if in into is it it's its just know
    let like make made many may me mean more most much must my need new no not of on one only or
    other our out over own please say see she should show so some tell than that the their them
    then there these they thing things this those through to too two up us use used using very
    want was way ways we were what what's when where which while who why will with without would
    write you your yours""",
    )
)


@dataclass(frozen=True)
class Metric:
    """A value with its 95 % interval and the number of measurements; None where
    there was nothing to measure."""

    value: float | None
    low: float | None
    high: float | None
    n: int


def words(text: str) -> list[str]:
    """Return the words of a text, in lower case."""
    return _WORD.findall(text.lower())


def repeats(text: str, length: int = 4) -> bool:
    """Return whether some run of `length` words occurs twice."""
    found = words(text)
    grams = [tuple(found[i : i + length]) for i in range(len(found) - length + 1)]
    return len(set(grams)) < len(grams)


def is_relevant(answer: str, question: str) -> bool:
    """Return whether the answer shares a content word with the question, or the question has
    none."""
    asked = _content_stems(question)
    return not asked or bool(asked & _content_stems(answer))


def distinct_bigrams(texts: Sequence[str]) -> float | None:
    """Return the share of different pairs of neighbouring words over all texts: falls when answers
    become one phrase."""
    pairs = []
    for text in texts:
        found = words(text)
        pairs += list(pairwise(found))
    return len(set(pairs)) / len(pairs) if pairs else None


def share(hits: Sequence[bool]) -> Metric:
    """Return a share with its Wilson interval."""
    n = len(hits)
    if n == 0:
        return Metric(None, None, None, 0)
    p = sum(hits) / n
    middle = (p + _Z95**2 / (2 * n)) / (1 + _Z95**2 / n)
    half = _Z95 * math.sqrt(p * (1 - p) / n + _Z95**2 / (4 * n**2)) / (1 + _Z95**2 / n)
    # Rounding must not put the bounds of 0 and 1 on the wrong side of the value.
    return Metric(p, max(0.0, min(p, middle - half)), min(1.0, max(p, middle + half)), n)


def mean(values: Sequence[float], *, seed: int = 0) -> Metric:
    """Return a mean with its bootstrap interval."""
    if not values:
        return Metric(None, None, None, 0)
    return _bootstrap(
        lambda rng: _average(rng.choices(values, k=len(values))),
        _average(values),
        len(values),
        seed,
    )


def ranking(liked: Sequence[float], disliked: Sequence[float], *, seed: int = 0) -> Metric:
    """P(a liked example has a higher reward than a disliked one), ties count half."""
    n = len(liked) + len(disliked)
    if not liked or not disliked:
        return Metric(None, None, None, n)

    def resample(rng: random.Random) -> float:
        return _auc(rng.choices(liked, k=len(liked)), rng.choices(disliked, k=len(disliked)))

    return _bootstrap(resample, _auc(liked, disliked), n, seed)


def _bootstrap(
    resample: Callable[[random.Random], float], value: float, n: int, seed: int
) -> Metric:
    rng = random.Random(seed)  # noqa: S311 - resampling, not a secret
    drawn = sorted(resample(rng) for _ in range(_RESAMPLES))
    return Metric(value, drawn[int(0.025 * _RESAMPLES)], drawn[int(0.975 * _RESAMPLES) - 1], n)


def _auc(liked: Sequence[float], disliked: Sequence[float]) -> float:
    wins = sum((a > b) + 0.5 * (a == b) for a in liked for b in disliked)
    return wins / (len(liked) * len(disliked))


def _average(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _content_stems(text: str) -> set[str]:
    return {_stem(word) for word in words(text) if len(word) > 2 and word not in _STOPWORDS}


def _stem(word: str) -> str:
    """Cut common endings, one after the other ('watering' and 'water' meet); three letters stay."""
    word = word.removesuffix("'s").removesuffix("’s")
    for suffix in _SUFFIXES:
        if word.endswith(suffix) and len(word) - len(suffix) >= 3:
            return _stem(word.removesuffix(suffix))
    return word
