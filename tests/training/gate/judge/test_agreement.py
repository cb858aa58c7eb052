"""Cohen's κ of a judge with people, and what its choices say of a pair."""

import random

import pytest

from feedback_app.training.gate.judge.agreement import Chosen, agreement, counts, preference

Both = tuple[Chosen, Chosen]


@pytest.mark.parametrize(
    ("chosen", "value"),
    [
        (("first", "first"), 1.0),
        (("second", "second"), 0.0),
        (("first", "second"), 0.5),
        (("second", "first"), 0.5),
        (("tie", "tie"), 0.5),
        (("first", "tie"), 0.5),
        (("first", None), None),
        ((None, None), None),
    ],
)
def test_preference_needs_both_orders(chosen: Both, value: float | None) -> None:
    assert preference(chosen) == value


def positions(pairs: list[Both]) -> tuple[list[str], list[str]]:
    """Return the positions that people and judge chose, one of each pair and order: `first` is in
    position A, then in B."""
    people, judge = [], []
    for plain, swapped in pairs:
        people += ["A", "B"]
        judge.append({"first": "A", "second": "B"}.get(str(plain), "tie"))
        judge.append({"first": "B", "second": "A"}.get(str(swapped), "tie"))
    return people, judge


@pytest.mark.parametrize("seed", range(5))
def test_kappa_is_that_of_scikit_learn(seed: int) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = random.Random(seed)
    kinds: tuple[Chosen, ...] = ("first", "second", "tie")
    weights = rng.choice([(6, 2, 1), (1, 1, 1), (2, 6, 1), (5, 1, 0)])
    pairs: list[Both] = []
    for _ in range(40):
        plain, swapped = rng.choices(kinds, weights, k=2)
        pairs.append((plain, swapped))
    assert agreement(pairs).kappa == pytest.approx(metrics.cohen_kappa_score(*positions(pairs)))


def test_position_or_tie_alone_is_no_agreement() -> None:
    always_a: list[Both] = [("first", "second")] * 30
    for pairs in (always_a, [("tie", "tie")] * 30):
        found = agreement(pairs)
        assert found.kappa == pytest.approx(0)
        assert not counts(found.kappa, found.low, 0.0)


def test_interval_covers_the_true_agreement_and_narrows() -> None:
    """A judge that chooses the liked answer with 80 % in each order: κ = 0.6."""
    rng = random.Random(1)

    def sample(count: int) -> list[Both]:
        return [
            tuple("first" if rng.random() < 0.8 else "second" for _ in range(2))  # type: ignore[misc]
            for _ in range(count)
        ]

    found = [agreement(sample(60)) for _ in range(200)]
    covered = [each for each in found if each.low is not None and each.low <= 0.6 <= each.high]  # type: ignore[operator]
    assert len(covered) >= 180
    few, many = agreement(sample(20)), agreement(sample(600))
    assert many.high - many.low < few.high - few.low  # type: ignore[operator]


def test_few_perfect_pairs_may_be_chance() -> None:
    perfect: list[Both] = [("first", "first")]
    assert agreement(perfect).kappa is None
    three, ten = agreement(3 * perfect), agreement(10 * perfect)
    assert three.kappa == ten.kappa == 1
    assert not counts(three.kappa, three.low, 0.3)
    assert counts(ten.kappa, ten.low, 0.3)


def test_invalid_answers_are_left_out() -> None:
    found = agreement([("first", "first")] * 8 + [("first", None), (None, None)])
    assert (found.pairs, found.kappa) == (8, 1)
    assert agreement([(None, None)]).kappa is None
