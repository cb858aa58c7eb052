"""Quantiles of the beta distribution, in plain arithmetic: scipy would add 100 MB to every web
process. A test compares the two."""

import math
from itertools import count

_EXACT = 1e-12


def beta_cdf(x: float, a: float, b: float) -> float:
    """Return P(X ≤ x) of X ~ Beta(a, b), by the continued fraction of DLMF 8.17.22."""
    if not 0 < x < 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):  # the fraction converges slowly there
        return 1 - beta_cdf(1 - x, b, a)
    front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    front += a * math.log(x) + b * math.log1p(-x)
    return math.exp(front) / (a * _fraction(x, a, b))


def _fraction(x: float, a: float, b: float) -> float:
    """Return the continued fraction 1 + d₁/(1 + d₂/(1 + …)), from the front (modified Lentz)."""
    value = c = 1.0
    d = 0.0
    for term in count(1):
        m = term // 2
        if term % 2:
            step = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            step = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        d = 1 / (1 + step * d)
        c = 1 + step / c
        value *= c * d
        if abs(c * d - 1) < _EXACT:
            break
    return value


def beta_quantile(p: float, a: float, b: float) -> float:
    """Return the x with P(X ≤ x) = p of X ~ Beta(a, b)."""
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        if beta_cdf(middle, a, b) < p:
            low = middle
        else:
            high = middle
    return (low + high) / 2
