"""Fewer points for plots: bounded, in order, and with every extreme."""

import math
import random
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from feedback_app.training.stats.thinning import indexes_kept

VALUES = st.lists(st.none() | st.floats(-1e6, 1e6), min_size=1, max_size=400)


def test_short_series_stay_as_they_are() -> None:
    assert indexes_kept([[1.0, None, 3.0]], most=3) == [0, 1, 2]


def test_spikes_of_every_series_are_kept() -> None:
    rng = random.Random(1)
    series = [[rng.random() for _ in range(10_000)] for _ in range(3)]
    series[0][4_321], series[1][17], series[2][9_998] = 50.0, -50.0, 9.0

    kept = indexes_kept(series, most=500)

    assert len(kept) <= 500
    assert {4_321, 17, 9_998, 0, 9_999} <= set(kept)
    # no part of the line is left out
    assert max(b - a for a, b in pairwise(kept)) < 500


@given(VALUES, st.integers(8, 50))
def test_points_are_bounded_and_their_range_is_that_of_the_series(
    values: list[float | None], most: int
) -> None:
    kept = indexes_kept([values, [None] * len(values)], most=most)
    assert kept == sorted(set(kept))
    assert len(kept) <= max(most, len(values) if len(values) <= most else 0)
    known = [value for value in values if value is not None]
    shown = [values[at] for at in kept if values[at] is not None]
    assert (min(shown, default=math.inf), max(shown, default=math.inf)) == (
        min(known, default=math.inf),
        max(known, default=math.inf),
    )
