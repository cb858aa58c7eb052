"""A simulation of people who use the site, from the measured cost of their requests.

A closed system: each person thinks, sends a request, waits for the response, and thinks again. The
cores are shared equally by all requests that are being answered, as an operating system shares
them; a request runs on one core. What a person waits for that costs no processor time, such as the
tokens of an answer, is added to the time they think.
"""

import heapq
import random
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import quantiles

WARM_SHARE = 0.25


@dataclass(frozen=True)
class Kind:
    """People of one kind. `share` of all people; times in seconds, `cost` in core seconds."""

    name: str
    share: float
    think: float
    cost: float


@dataclass(frozen=True)
class Load:
    """What this number of people leads to: requests per second, and seconds of a response."""

    people: int
    rate: float
    p50: float
    p99: float


def simulate(
    kinds: Sequence[Kind], *, people: int, cores: float, seconds: float = 120.0, seed: int = 0
) -> Load:
    """Return the load of `people`, after a quarter of the time in which the queue fills."""
    chance = random.Random(seed)
    thinking: list[tuple[float, int]] = []
    kind_of = [kinds_at(kinds, (number + 0.5) / people) for number in range(people)]
    for person in range(people):
        heapq.heappush(thinking, (chance.uniform(0, kind_of[person].think), person))
    # served: the work that each running request had received when it began, plus what it needs
    running: list[tuple[float, int, float]] = []
    now = served = 0.0
    warm = WARM_SHARE * seconds
    times: list[float] = []
    while now < seconds:
        speed = min(1.0, cores / len(running)) if running else 0.0
        ends = now + (running[0][0] - served) / speed if running else float("inf")
        begins = thinking[0][0] if thinking else float("inf")
        then = min(ends, begins)
        served += (then - now) * speed
        now = then
        if ends <= begins:
            _, person, sent = heapq.heappop(running)
            if sent > warm:
                times.append(now - sent)
            pause = chance.expovariate(1 / kind_of[person].think)
            heapq.heappush(thinking, (now + pause, person))
        else:
            _, person = heapq.heappop(thinking)
            work = chance.uniform(0.5, 1.5) * kind_of[person].cost
            heapq.heappush(running, (served + work, person, now))
    cut = quantiles(times, n=100)
    return Load(people, len(times) / (seconds - warm), cut[49], cut[98])


def kinds_at(kinds: Sequence[Kind], place: float) -> Kind:
    """Return the kind of the person at this place, from 0 to 1, of all people by kind."""
    for kind in kinds:
        if place < kind.share:
            return kind
        place -= kind.share
    return kinds[-1]


def knee(kinds: Sequence[Kind], loads: Sequence[Load]) -> float:
    """Return the number of people at which the rate stops growing with it.

    It is where two lines cross: the rate of people who never wait, and the highest rate.
    """
    per_person = sum(kind.share / (kind.think + kind.cost) for kind in kinds)
    return max(load.rate for load in loads) / per_person
