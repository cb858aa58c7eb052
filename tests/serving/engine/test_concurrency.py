"""The number of requests in flight is adapted to the throughput of the engine."""

from collections.abc import Callable

import pytest

from feedback_app.serving.engine.concurrency import HOLD_SECONDS, START, ConcurrencyLimit


class Clock:
    """A clock that tests advance."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


Rate = Callable[[int], float]


def work(
    pace: ConcurrencyLimit, clock: Clock, rate: Rate, seconds: float, *, step: float = 0.25
) -> list[int]:
    """Simulate an engine with a rate of `rate(n)` tokens per second at n requests in flight; return
    the limits that were set, in order."""
    seen, under_way, owed = [], 0, 0.0
    for _ in range(int(seconds / step)):
        for _ in range(under_way, pace.allowed):
            pace.begun()
        under_way = pace.allowed
        clock.now += step
        owed += rate(under_way) * step
        pace.delivered(int(owed))
        owed -= int(owed)
        if seen[-1:] != [pace.allowed]:
            seen.append(pace.allowed)
    return seen


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.mark.parametrize("each", [0.2, 1.0, 20.0], ids=lambda each: f"{each} tokens a second")
def test_limit_grows_to_the_bound_while_the_rate_grows(clock: Clock, each: float) -> None:
    pace = ConcurrencyLimit(most=16, clock=clock)
    assert pace.allowed == START
    assert work(pace, clock, lambda n: each * n, 200 / each) == [4, 8, 16]


def test_limit_is_reduced_where_more_requests_do_not_raise_the_rate(clock: Clock) -> None:
    pace = ConcurrencyLimit(most=16, clock=clock)
    full_at_eight = work(pace, clock, lambda n: 10.0 * min(n, 8), HOLD_SECONDS)
    assert full_at_eight == [4, 8, 16, 8]
    # tries more again after HOLD_SECONDS, as the engine may have more capacity by then
    assert work(pace, clock, lambda n: 10.0 * n, 2 * HOLD_SECONDS) == [8, 16]


def test_limit_does_not_grow_on_an_engine_that_is_full_at_the_start(clock: Clock) -> None:
    pace = ConcurrencyLimit(most=16, clock=clock)
    assert work(pace, clock, lambda n: 10.0, HOLD_SECONDS) == [4, 8, 4]


def test_refusals_halve_the_limit_once_and_it_recovers(clock: Clock) -> None:
    pace = ConcurrencyLimit(most=16, clock=clock)
    work(pace, clock, lambda n: 10.0 * n, 60)
    assert pace.allowed == 16
    for _ in range(5):  # refusals of requests sent together
        pace.refused()
    assert pace.allowed == 8
    for _ in range(6):
        clock.now += 2
        pace.refused()
    assert pace.allowed == 1
    assert work(pace, clock, lambda n: 10.0 * n, HOLD_SECONDS - 1) == [1]
    assert work(pace, clock, lambda n: 10.0 * n, 60) == [1, 2, 4, 8, 16]


def test_limit_never_exceeds_the_bound(clock: Clock) -> None:
    assert ConcurrencyLimit(most=1, clock=clock).allowed == 1
    assert work(ConcurrencyLimit(most=6, clock=clock), clock, lambda n: 10.0 * n, 60) == [4, 6]


def test_prefill_of_added_requests_is_not_measured(clock: Clock) -> None:
    pace = ConcurrencyLimit(most=8, clock=clock)
    for _ in range(4):
        pace.begun()
    for _ in range(10):
        clock.now += 0.25
        pace.delivered(10)
    assert pace.allowed == 8
    for _ in range(100):  # the prefill of four requests slows the decoding of four others
        clock.now += 0.25
        pace.delivered(1)
    assert pace.allowed == 8, "the rate at the higher limit is not measured yet"
    for _ in range(4):
        pace.begun()
    for _ in range(10):
        clock.now += 0.25
        pace.delivered(20)
    assert pace.allowed == 8
