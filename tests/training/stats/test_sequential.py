"""The sequential test: values computed by hand, and its error rate when read after each vote."""

import math

import numpy as np
import pytest

from feedback_app.training.stats.sequential import (
    ALPHA,
    State,
    comparisons_to_go,
    interval,
    log_evidence,
    read,
)

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("wins", "losses", "evidence"),
    [
        (0, 0, 1.0),
        (1, 0, 1.0),  # B(2, 1) · 2 = 1/2 · 2
        (2, 0, 4 / 3),  # B(3, 1) · 4 = 1/3 · 4
        (3, 1, 16 / 20),  # B(4, 2) = 3! 1! / 5! = 1/20
        (10, 0, 1024 / 11),
    ],
)
def test_evidence_equals_values_computed_by_hand(wins: int, losses: int, evidence: float) -> None:
    assert math.exp(log_evidence(wins, losses)) == pytest.approx(evidence)
    assert log_evidence(losses, wins) == pytest.approx(log_evidence(wins, losses))


@pytest.mark.parametrize(("wins", "losses"), [(0, 0), (5, 3), (200, 900), (70_000, 69_000)])
def test_evidence_and_interval_equal_scipy(wins: int, losses: int) -> None:
    from scipy.optimize import brentq
    from scipy.special import betaln

    def evidence(share: float) -> float:
        likelihood = wins * math.log(share) + losses * math.log1p(-share)
        return float(betaln(wins + 1, losses + 1)) - likelihood

    assert log_evidence(wins, losses) == pytest.approx(evidence(0.5), abs=1e-8)
    low, high = interval(wins, losses)
    best = wins / (wins + losses) if wins + losses else 0.5
    for edge, found in ((1e-12, low), (1 - 1e-12, high)):
        if 0 < found < 1:
            expected = brentq(lambda share: evidence(share) + math.log(ALPHA), edge, best)
            assert found == pytest.approx(expected, abs=1e-9)
    assert (low, high) != (0.0, 1.0) or wins + losses == 0


def test_evidence_is_a_martingale_for_equally_good_versions() -> None:
    for wins in range(30):
        for losses in range(30):
            after = (
                math.exp(log_evidence(wins + 1, losses)) + math.exp(log_evidence(wins, losses + 1))
            ) / 2
            assert after == pytest.approx(math.exp(log_evidence(wins, losses)))


def walks(share: float, *, people: int, votes: int) -> np.ndarray:
    """Return log E after each vote, shape (people, votes), for a true share of wins of `share`."""
    from scipy.special import betaln

    won = np.random.default_rng(7).random((people, votes)) < share
    wins = won.cumsum(axis=1)
    losses = np.arange(1, votes + 1) - wins
    found: np.ndarray = betaln(wins + 1, losses + 1) + (wins + losses) * math.log(2)
    return found


def test_error_rate_when_read_after_every_vote_is_at_most_alpha() -> None:
    ever = (walks(0.5, people=4_000, votes=1_000) >= -math.log(ALPHA)).any(axis=1)
    assert 0.005 < ever.mean() <= ALPHA  # a fixed-sample test at 5 % errs in half of such walks


def test_difference_is_found_and_the_forecast_is_within_a_factor_of_two() -> None:
    crossed = walks(0.7, people=500, votes=1_000) >= -math.log(ALPHA)
    assert crossed.any(axis=1).all()
    median = float(np.median(crossed.argmax(axis=1))) + 1
    forecast = comparisons_to_go(7, 3)
    assert forecast is not None
    assert 0.5 < (forecast + 10) / median < 2


def test_interval_covers_the_true_share_at_all_times() -> None:
    truth, rng, outside = 0.62, np.random.default_rng(3), 0
    for _ in range(200):
        wins = losses = 0
        for won in rng.random(150) < truth:
            wins, losses = wins + bool(won), losses + (not won)
            if log_evidence(wins, losses, truth) > -math.log(ALPHA):
                low, high = interval(wins, losses)
                assert not low <= truth <= high
                outside += 1
                break
    assert outside <= 200 * ALPHA
    low, high = interval(62, 38)
    assert low < 0.62 < high
    for edge in (low, high):
        assert log_evidence(62, 38, edge) == pytest.approx(-math.log(ALPHA))


def test_states_of_the_test() -> None:
    nothing = read(0, 0)
    assert (nothing.state, nothing.low, nothing.high, nothing.to_go) == (State.OPEN, 0, 1, None)
    assert read(10, 0).state == State.BETTER
    assert read(0, 10).state == State.WORSE
    even = read(50, 50)
    assert (even.state, even.to_go) == (State.OPEN, None)
    near = read(7, 2)
    assert near.state == State.OPEN
    assert near.to_go is not None
    assert read(7 * 4, 2 * 4).state == State.BETTER


@pytest.mark.parametrize("share", [0.6, 0.75, 0.9])
def test_comparison_that_several_people_judged_adds_no_evidence_on_average(share: float) -> None:
    """Fractions of a win keep the bound: with equally good versions the evidence never grows."""
    for wins in range(20):
        for losses in range(20):
            after = (
                math.exp(log_evidence(wins + share, losses + 1 - share))
                + math.exp(log_evidence(wins + 1 - share, losses + share))
            ) / 2
            assert after <= math.exp(log_evidence(wins, losses))
