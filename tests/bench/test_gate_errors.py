"""The gate's error rates by simulation, in a small form; bench/gate has the large one."""

import pytest

from bench.gate.simulation import HARMS, Pool, World, power, rates
from tests.training.gate.reports import gate_report

pytestmark = pytest.mark.slow

WORLDS = 40


@pytest.fixture(scope="module")
def pool() -> Pool:
    return Pool(gate_report(answers=4, prompts=60))


@pytest.mark.parametrize("votes", [20, pytest.param(1_000, marks=pytest.mark.long)])
def test_version_equal_to_live_rarely_passes(pool: Pool, votes: int) -> None:
    # at most 5 %: more than six of forty has a chance of one in two hundred then
    assert rates(pool, World(), votes, WORLDS).passed <= 6 / WORLDS


@pytest.mark.parametrize("same", [0.9, pytest.param(0.97, marks=pytest.mark.long)])
def test_version_that_answers_nearly_as_live_rarely_passes(pool: Pool, same: float) -> None:
    assert rates(pool, World(same=same), 200, WORLDS).passed <= 6 / WORLDS


@pytest.mark.parametrize("harm", HARMS)
def test_version_that_lost_twice_a_margin_never_passes(pool: Pool, harm: str) -> None:
    assert rates(pool, World(gain=0.2, ranking=1.5, harm=harm), 200, 10).passed == 0


@pytest.mark.long
def test_better_version_passes_and_rarely_fails(pool: Pool) -> None:
    found = power(pool, 0.2, 200, WORLDS)
    assert found.passed >= 0.5
    assert found.failed <= 0.1
    assert power(pool, 0.02, 200, WORLDS).passed < found.passed
