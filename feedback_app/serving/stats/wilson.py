"""Wilson's score interval for a share of successes (Wilson 1927).

Plain arithmetic: scipy.stats would add 100 MB to every web process. A test compares the two.
"""

import math

#: The 97.5 % quantile of the standard normal distribution, for a two-sided 95 % interval.
Z = 1.959963984540054


def wilson_interval(hits: int, trials: int) -> tuple[float, float]:
    """Return the 95 % interval (low, high) of the share `hits / trials`, within [0, 1].

    Raises ValueError unless 0 ≤ hits ≤ trials and trials > 0.
    """
    if not 0 <= hits <= trials or trials == 0:
        raise ValueError(f"{hits} of {trials} is no share")
    share = hits / trials
    weight = Z * Z / trials
    centre = (share + weight / 2) / (1 + weight)
    half = math.sqrt(share * (1 - share) * weight + weight * weight / 4) / (1 + weight)
    low = 0.0 if hits == 0 else centre - half
    high = 1.0 if hits == trials else centre + half
    return low, high
