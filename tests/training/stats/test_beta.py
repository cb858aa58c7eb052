"""Quantiles of the beta distribution equal scipy's."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from feedback_app.training.stats.beta import beta_cdf, beta_quantile

SHAPES = st.floats(0.5, 40)


@given(st.floats(0.001, 0.999), SHAPES, SHAPES)
def test_distribution_equals_scipys(x: float, a: float, b: float) -> None:
    assert beta_cdf(x, a, b) == pytest.approx(stats.beta.cdf(x, a, b), abs=1e-9)


@given(st.floats(0.001, 0.999), SHAPES, SHAPES)
def test_quantile_equals_scipys(p: float, a: float, b: float) -> None:
    assert beta_quantile(p, a, b) == pytest.approx(stats.beta.ppf(p, a, b), abs=1e-7)


def test_outside_of_the_distribution() -> None:
    assert (beta_cdf(-0.1, 2, 3), beta_cdf(0.0, 2, 3)) == (0.0, 0.0)
    assert (beta_cdf(1.0, 2, 3), beta_cdf(1.1, 2, 3)) == (1.0, 1.0)
