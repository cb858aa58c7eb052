"""The test of a traffic split: values computed by hand, and its error rate with repeated reads."""

import itertools
import math

import numpy as np
import pytest

from feedback_app.serving.stats.two_rates import (
    Blocks,
    SplitVote,
    block_composition,
    blocks_of,
    log_evidence,
    read,
)
from feedback_app.training.stats.sequential import ALPHA, State

LINE = -math.log(ALPHA)


def blocks(*rows: tuple[int, int, int, int]) -> Blocks:
    return Blocks(*np.array(rows, dtype=np.int64).T)


def votes(*, ours: str, lives: str, percent: int = 50) -> list[SplitVote]:
    """Return the candidate's votes and then the live version's: `+` is up."""
    return [
        SplitVote(candidate, vote == "+", percent)
        for candidate, votes in ((True, ours), (False, lives))
        for vote in votes
    ]


def test_evidence_equals_values_computed_by_hand() -> None:
    # the first block only fits the rates; then θ꜀ = 2/3, θₗ = 1/3, θ₀ = 1/2, and ↑↓ is 4/9 over 1/4
    first, second, third = np.exp(log_evidence(blocks((1, 1, 0, 1), (1, 1, 0, 1), (0, 1, 1, 1))))
    assert first == pytest.approx(1)
    assert second == pytest.approx(16 / 9)
    # now 3/4 and 1/4: ↓↑ is 1/16 over 1/4
    assert third == pytest.approx(16 / 9 / 4)


@pytest.mark.parametrize(("ours", "lives"), [(1, 1), (1, 4), (3, 1)])
def test_expected_factor_of_a_block_is_at_most_one(ours: int, lives: int) -> None:
    """This holds for any earlier blocks and any common rate."""
    before = ((ours, ours, 0, lives), (ours, ours, 1, lives), (0, ours, 0, lives))
    start = log_evidence(blocks(*before))[-1]
    for rate in np.linspace(0.01, 0.99, 25):
        mean = sum(
            math.comb(ours, up)
            * math.comb(lives, live_up)
            * rate ** (up + live_up)
            * (1 - rate) ** (ours + lives - up - live_up)
            * math.exp(log_evidence(blocks(*before, (up, ours, live_up, lives)))[-1] - start)
            for up, live_up in itertools.product(range(ours + 1), range(lives + 1))
        )
        assert mean <= 1 + 1e-9


def walks(
    rate: float, live: float, *, make: tuple[int, int], people: int, count: int
) -> np.ndarray:
    """Return log E after each block, shape (people, count), for these rates of up votes."""
    rng = np.random.default_rng(11)
    ours, lives = make
    votes = np.full((people, count), ours), np.full((people, count), lives)
    return log_evidence(
        Blocks(
            rng.binomial(ours, rate, (people, count)),
            votes[0],
            rng.binomial(lives, live, (people, count)),
            votes[1],
        )
    )


@pytest.mark.parametrize(("rate", "percent"), [(0.5, 50), (0.85, 50), (0.6, 10), (0.3, 80)])
def test_error_rate_when_read_after_every_vote_is_at_most_alpha(rate: float, percent: int) -> None:
    """Within a year of reads a fixed-sample test at 5 % errs in more than a third of such walks."""
    ever = (
        walks(rate, rate, make=block_composition(percent), people=2_000, count=500) >= LINE
    ).any(axis=1)
    assert 0.005 < ever.mean() <= ALPHA


def test_difference_of_twenty_points_is_found_after_about_160_votes() -> None:
    crossed = walks(0.8, 0.6, make=(1, 1), people=1_000, count=1_500) >= LINE
    assert crossed.any(axis=1).all()
    votes = 2 * (crossed.argmax(axis=1) + 1)
    assert 100 < np.median(votes) < 220
    assert np.quantile(votes, 0.9) < 480


def test_states_of_the_test() -> None:
    assert read([]).state == State.OPEN
    assert read([]).to_go is None
    assert read(votes(ours="+" * 20, lives="-" * 20)).state == State.BETTER
    assert read(votes(ours="-" * 20, lives="+" * 20)).state == State.WORSE
    assert read(votes(ours="+-" * 20, lives="+-" * 20)).to_go is None
    near = read(votes(ours="++++-" * 6, lives="+++--" * 6))
    assert near.state == State.OPEN
    assert near.to_go is not None
    assert 60 < near.to_go < 400
    # votes after the decision do not undo it
    late = votes(ours="+" * 20, lives="-" * 20) + votes(ours="-" * 40, lives="+" * 40)
    assert read(late).state == State.BETTER


def test_block_has_the_composition_of_the_percentage_of_its_first_vote() -> None:
    assert [block_composition(percent) for percent in (1, 10, 25, 50, 75, 99)] == [
        (1, 20),
        (1, 9),
        (1, 3),
        (1, 1),
        (3, 1),
        (20, 1),
    ]
    found = blocks_of(
        [
            *votes(ours="", lives="++-", percent=25),  # opens a block of one and three
            *votes(ours="+", lives="", percent=50),  # closes it
            *votes(ours="-+", lives="-", percent=50),  # a block of one and one; one is left
        ]
    )
    assert found.votes.tolist() == [1, 1]
    assert found.live_votes.tolist() == [3, 1]
    assert found.ups.tolist() == [1, 0]
    assert found.live_ups.tolist() == [2, 0]
