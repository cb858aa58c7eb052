"""Wilson's interval compared with scipy's."""

import pytest
from scipy.stats import binomtest

from feedback_app.serving.stats.wilson import wilson_interval


@pytest.mark.parametrize("trials", [1, 2, 7, 40, 1_000, 250_000])
def test_interval_equals_scipy(trials: int) -> None:
    for hits in {0, 1, trials // 3, trials // 2, trials - 1, trials}:
        expected = binomtest(hits, trials).proportion_ci(method="wilson")
        assert wilson_interval(hits, trials) == pytest.approx(tuple(expected), abs=1e-12)


@pytest.mark.parametrize(("hits", "trials"), [(0, 0), (3, 2), (-1, 2)])
def test_invalid_counts_are_refused(hits: int, trials: int) -> None:
    with pytest.raises(ValueError, match="no share"):
        wilson_interval(hits, trials)
