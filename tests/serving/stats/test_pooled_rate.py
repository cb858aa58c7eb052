"""The representative up-rate, against populations whose rate is known."""

import random
from collections import defaultdict
from dataclasses import dataclass

import pytest

from feedback_app.serving.stats.pooled_rate import Cell, Voters, correlation_of, pooled_rate
from feedback_app.serving.stats.wilson import wilson_interval

RUNS = 300


@dataclass(frozen=True)
class Group:
    """Readers of one cell: their mean rate of ups, the spread between people as `strength` (of a
    Beta), and the share of their answers that they vote on."""

    people: int
    answers_each: int
    rate: float
    votes: float
    strength: float = 20.0


#: The unhappy users of the API vote on a third of their answers, everybody else on one in twenty.
UNHAPPY_VOTE_MORE = [
    Group(people=400, answers_each=5, rate=0.75, votes=0.05),
    Group(people=300, answers_each=10, rate=0.8, votes=0.05),
    Group(people=60, answers_each=10, rate=0.35, votes=0.33),
]
#: Few votes in most groups.
SPARSE = [
    Group(people=10, answers_each=4, rate=0.6, votes=0.4),
    Group(people=40, answers_each=5, rate=0.7, votes=0.1),
    Group(people=100, answers_each=3, rate=0.65, votes=0.05),
    Group(people=30, answers_each=10, rate=0.8, votes=0.1),
]


def drawn(groups: list[Group], rng: random.Random) -> tuple[list[Cell], float, float]:
    """Return the cells of one world, its true share of ups over all answers, and the raw rate."""
    cells, good, answers, ups, votes = [], 0.0, 0, 0, 0
    for group in groups:
        sums: dict[int, list[int]] = defaultdict(lambda: [0, 0, 0])
        for _ in range(group.people):
            rate = rng.betavariate(group.rate * group.strength, (1 - group.rate) * group.strength)
            n = sum(rng.random() < group.votes for _ in range(group.answers_each))
            x = sum(rng.random() < rate for _ in range(n))
            good += rate * group.answers_each
            if n:
                sums[n] = [a + b for a, b in zip(sums[n], (1, x, x * x), strict=True)]
            ups, votes = ups + x, votes + n
        answers += group.people * group.answers_each
        voters = tuple(Voters(n, *values) for n, values in sums.items())
        cells.append(Cell(group.people * group.answers_each, voters))
    return cells, good / answers, ups / votes


@pytest.mark.parametrize("groups", [UNHAPPY_VOTE_MORE, SPARSE])
def test_interval_covers_the_truth_at_its_nominal_rate(groups: list[Group]) -> None:
    rng = random.Random(7)
    covered = 0
    for _ in range(RUNS):
        cells, truth, _ = drawn(groups, rng)
        found = pooled_rate(cells)
        assert found is not None
        covered += found.low <= truth <= found.high

    # 95 % of 300 are 285, with a standard deviation of 3.8
    assert covered >= 0.92 * RUNS


def test_estimate_is_closer_than_the_raw_rate_where_the_unhappy_vote_more() -> None:
    rng = random.Random(8)
    ours = raw_error = closer = covered_raw = 0.0
    for _ in range(RUNS):
        cells, truth, raw = drawn(UNHAPPY_VOTE_MORE, rng)
        found = pooled_rate(cells)
        assert found is not None
        ours += abs(found.share - truth) / RUNS
        raw_error += abs(raw - truth) / RUNS
        closer += abs(found.share - truth) < abs(raw - truth)
        votes = sum(cell.votes for cell in cells)
        low, high = wilson_interval(sum(cell.ups for cell in cells), votes)
        covered_raw += low <= truth <= high

    assert closer > 0.95 * RUNS
    assert ours < 0.05 < 0.1 < raw_error
    assert covered_raw < 0.1 * RUNS  # the raw rate's interval misses


def test_one_group_of_single_votes_gives_the_raw_rate() -> None:
    found = pooled_rate([Cell(1000, (Voters(votes=1, people=200, ups=140, ups_squared=140),))])

    assert found is not None
    low, high = wilson_interval(140, 200)
    assert found.share == pytest.approx(0.7, abs=0.005)
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.01)


def test_somebody_who_votes_a_hundred_times_does_not_decide() -> None:
    others = Voters(votes=1, people=30, ups=24, ups_squared=24)
    one = Voters(votes=100, people=1, ups=0, ups_squared=0)

    found = pooled_rate([Cell(500, (others, one))])

    assert found is not None
    assert found.share > 0.6  # the raw rate is 18 %


def test_group_without_votes_widens_the_interval() -> None:
    voted = Cell(100, (Voters(votes=1, people=60, ups=45, ups_squared=45),))

    alone = pooled_rate([voted])
    beside = pooled_rate([voted, Cell(400)])

    assert alone is not None
    assert beside is not None
    assert beside.high - beside.low > 1.5 * (alone.high - alone.low)


@pytest.mark.parametrize("ups", [0, 5])
def test_unanimous_votes_stay_within_0_and_1(ups: int) -> None:
    found = pooled_rate([Cell(5, (Voters(votes=1, people=5, ups=ups, ups_squared=ups),))])

    assert found is not None
    assert 0 < found.low < found.share < found.high < 1


@pytest.mark.parametrize(
    "cells",
    [[], [Cell(10)], [Cell(0, (Voters(votes=1, people=1, ups=1, ups_squared=1),))]],
)
def test_nothing_to_estimate_from_gives_none(cells: list[Cell]) -> None:
    assert pooled_rate(cells) is None


def test_correlation_is_high_where_people_disagree_and_each_is_consistent() -> None:
    up = Voters(votes=10, people=20, ups=200, ups_squared=2000)
    split = Voters(votes=10, people=40, ups=200, ups_squared=1000)
    down = Voters(votes=10, people=20, ups=0, ups_squared=0)

    assert correlation_of([Cell(1, (up, down))]) > 0.8
    assert correlation_of([Cell(1, (split,))]) < 0.05
