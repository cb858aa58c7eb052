"""The simulation and the capacity model of `make bench-load`."""

from pathlib import Path

import pytest

from bench.load.capacity import COSTS, UTILISATION, need, table
from bench.load.simulation import Kind, knee, simulate

ROOT = Path(__file__).resolve().parents[2]
KIND = Kind("annotator", 1.0, think=1.0, cost=0.02)


def test_few_people_never_wait() -> None:
    load = simulate([KIND], people=5, cores=2, seconds=400)

    assert load.rate == pytest.approx(5 / (KIND.think + KIND.cost), rel=0.05)
    assert load.p50 < 2 * KIND.cost


def test_the_cores_limit_the_rate() -> None:
    load = simulate([KIND], people=300, cores=2, seconds=400)

    assert load.rate == pytest.approx(2 / KIND.cost, rel=0.05)
    # whoever does not think waits: 300 people, of whom rate x think seconds are thinking
    assert load.p50 == pytest.approx(300 / load.rate - KIND.think, rel=0.15)
    assert load.p99 > load.p50


def test_knee_is_where_people_fill_the_cores() -> None:
    kinds = [Kind("quick", 0.5, 1.0, 0.02), Kind("slow", 0.5, 3.0, 0.04)]
    loads = [simulate(kinds, people=people, cores=2, seconds=400) for people in (20, 200, 600)]

    busy = 0.5 * 0.02 / 1.02 + 0.5 * 0.04 / 3.04  # of a core, by a person who never waits
    assert knee(kinds, loads) == pytest.approx(2 / busy, rel=0.25)


def test_same_seed_gives_the_same_load() -> None:
    assert simulate([KIND], people=50, cores=1) == simulate([KIND], people=50, cores=1)
    assert simulate([KIND], people=50, cores=1) != simulate([KIND], people=50, cores=1, seed=1)


def test_need_grows_with_the_number_of_annotators() -> None:
    few, many = need(1_000), need(10_000)

    assert many.votes_a_second == pytest.approx(10 * few.votes_a_second)
    assert many.web_cores == pytest.approx(10 * few.web_cores)
    # no process is planned to use more of its core than this
    assert many.web_cores * UTILISATION / many.web_processes <= UTILISATION + 0.01
    assert min(COSTS.vote_web, COSTS.vote_database, COSTS.chat_web, COSTS.vote_bytes) > 0


def test_table_of_the_document_is_what_the_model_prints() -> None:
    text = (ROOT / "docs" / "scaling.md").read_text()
    missing = [line for line in table().splitlines() if line not in text]
    assert not missing, "docs/scaling.md is not what `python -m bench.load.capacity` prints"
