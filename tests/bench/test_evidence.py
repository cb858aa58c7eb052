"""The studies of `make evidence`: rules, intervals, cells on a tiny model, and a whole table."""

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.evidence import cells, pool, report, studies
from bench.evidence.cells import Cell, outcome
from bench.evidence.report import markdown, plot, plot_name, result
from bench.evidence.rules import RULES
from bench.evidence.site import drawn
from bench.evidence.statistics import mean
from bench.evidence.studies import STUDIES, Table, trained
from tests.tiny import make_tiny_model
from trainer.data.examples import Example
from trainer.data.messages import Message


@pytest.mark.parametrize(
    ("rule", "liked", "disliked"),
    [
        ("form", "1. Boil water.\n2. Add tea and wait for five minutes or so.", "word " * 15 + "."),
        ("content", "Eat fruit, such as apples.", "1. Eat fruit.\n2. Sleep well."),
        ("manner", "**You** can try.", "Young people can try."),
    ],
)
def test_rules(rule: str, liked: str, disliked: str) -> None:
    assert RULES[rule].likes(liked)
    assert not RULES[rule].likes(disliked)


@pytest.mark.slow
def test_interval_is_as_wide_as_prompts_and_seeds_make_it() -> None:
    rng = np.random.default_rng(0)
    misses = 0
    worlds = 100
    for world in range(worlds):
        of_prompt, of_seed = rng.normal(0, 0.3, 64), rng.normal(0, 0.02, 3)
        values = 0.5 + of_prompt[None, :] + of_seed[:, None] + rng.normal(0, 0.3, (3, 64))
        found = mean(values, seed=world)
        misses += not found.low <= 0.5 <= found.high
    # 5 % are wanted; more than 13 of 100 are one in two thousand
    assert misses <= 13


def example(number: int) -> Example:
    """Return answer `number`: four to a prompt, every second one is liked."""
    words = random.Random(number).sample("bread river oven honest Paris water".split(), 3)
    return Example(
        id=str(number),
        prompt=(Message("user", f"Question {number // 4}?"),),
        completion=" ".join(words),
        label=number % 2 == 0,
    )


EXAMPLES = [example(number) for number in range(64)]


def test_prompts_are_drawn_whole_and_small_draws_are_part_of_large_ones() -> None:
    few, many = drawn(EXAMPLES, 16, seed=1), drawn(EXAMPLES, 32, seed=1)
    assert len({one.prompt for one in few}) == 4
    assert many[:16] == few
    assert drawn(EXAMPLES, 16, seed=2) != few


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    model = make_tiny_model(tmp_path / "model")
    monkeypatch.setattr(pool, "base_model", lambda: model)
    monkeypatch.setattr(cells, "base_model", lambda: model)
    monkeypatch.setattr(pool, "UNSEEN", 4)
    pool.unseen_prompts.cache_clear()
    monkeypatch.setattr(cells, "WORK", tmp_path)
    monkeypatch.setattr(cells, "CELLS", tmp_path / "cells")
    yield model
    pool.unseen_prompts.cache_clear()


@pytest.mark.slow
def test_cell_is_trained_once_and_depends_on_votes_settings_seed_and_start(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Cell(0, tuple(EXAMPLES[:16]), {"epochs": 1})
    found = outcome(first)
    assert len(found.texts) == len(found.finished) == 4
    assert not found.failure

    monkeypatch.setattr(cells, "train", None)  # another training would be an error
    renumbered = tuple(replace(one, id=f"other {one.id}") for one in first.examples)
    assert outcome(Cell(0, renumbered, {"epochs": 1})) == found
    others = [
        Cell(1, first.examples, {"epochs": 1}),
        Cell(0, first.examples, {"epochs": 2}),
        Cell(0, first.examples[:12], {"epochs": 1}),
        Cell(0, first.examples, {"epochs": 1}, start=Cell(0, first.examples)),
    ]
    assert len({cell.key for cell in (first, *others)}) == 5


@pytest.mark.slow
def test_cell_starts_from_the_merged_version_before_it(tiny: Path) -> None:
    first = Cell(0, tuple(EXAMPLES[:16]), {"epochs": 1})
    second = Cell(0, tuple(EXAMPLES[16:32]), {"epochs": 1}, start=first)
    assert len(outcome(second).texts) == 4
    assert (cells.WORK / "merged" / first.key / "model.safetensors").exists()


@pytest.mark.long
@pytest.mark.slow
def test_failed_training_is_a_row_of_its_own(tiny: Path, tmp_path: Path) -> None:
    usual = trained(lambda seed: EXAMPLES[:16], epochs=1)
    exploding = trained(lambda seed: EXAMPLES[:16], epochs=1, kl_brake=1e-9, probe_every=1)
    table = Table("form", {"usual": usual, "stopped at once": exploding}, "usual")
    found = result(table)
    page = markdown(STUDIES[0], [found])
    assert "| usual |" in page
    assert "| stopped at once | training failed: " in page

    plot(STUDIES[0], 0, found, tmp_path)
    name = plot_name(STUDIES[0], 0)
    drawn_once = (tmp_path / name).read_bytes()
    assert drawn_once.startswith(b"<?xml")
    plot(STUDIES[0], 0, found, tmp_path)
    assert (tmp_path / name).read_bytes() == drawn_once
    assert report.as_json([found]).count('"arm"') == 2


def test_round_with_votes_of_one_kind_keeps_the_version(monkeypatch: pytest.MonkeyPatch) -> None:
    def votes(number: int, *labels: bool) -> list[Example]:
        return [
            Example(f"{number}-{place}", (Message("user", "?"),), "So.", label)
            for place, label in enumerate(labels)
        ]

    rounds = {1: votes(1, True, False), 2: votes(2, True, True), 3: votes(3, False, True)}
    monkeypatch.setattr(studies, "voted", lambda name, make: rounds[int(name.rsplit("-", 1)[1])])
    first, second, third = (studies._round(pytest.fail, True, number, 0) for number in (1, 2, 3))
    assert first == Cell(0, tuple(rounds[1]))
    assert second == first
    assert third == Cell(0, tuple(rounds[3]), start=first)
