"""Dawid and Skene's estimate, against simulated annotators whose accuracy is known."""

import numpy as np
import pytest

from feedback_app.feedback.reliability.dawid_skene import Accuracy, Verdicts, accuracies

#: The probability of an up where up is right, and where down is right.
GOOD, CAREFUL, RANDOM, ALWAYS_UP, ADVERSARIAL = (
    (0.92, 0.1),
    (0.97, 0.05),
    (0.5, 0.5),
    (1.0, 1.0),
    (0.1, 0.9),
)
PEOPLE = [GOOD, GOOD, CAREFUL, GOOD, RANDOM, ALWAYS_UP, ADVERSARIAL]


def simulated(
    people: list[tuple[float, float]], *, items: int, overlap: int, gold: int, seed: int
) -> Verdicts:
    """Return verdicts of people on random items; the first `gold` items have a known verdict."""
    rng = np.random.default_rng(seed)
    truth = (rng.random(items) < 0.6).astype(float)
    rows = [
        (item, person, float(rng.random() < people[person][0 if truth[item] else 1]))
        for item in range(items)
        for person in rng.permutation(len(people))[: len(people) if item < gold else overlap]
    ]
    item, person, up = (np.array(column) for column in zip(*rows, strict=True))
    known = np.where(np.arange(items) < gold, truth, np.nan)
    return Verdicts(item=item, person=person, up=up.astype(float), truth=known)


def balanced(person: tuple[float, float]) -> float:
    return (person[0] + 1 - person[1]) / 2


@pytest.mark.parametrize(("overlap", "gold"), [(3, 0), (2, 20)])
def test_good_random_hasty_and_adversarial_people_are_told_apart(overlap: int, gold: int) -> None:
    verdicts = simulated(PEOPLE, items=600, overlap=overlap, gold=gold, seed=1)

    found = accuracies(verdicts, people=len(PEOPLE))

    for person, estimate in zip(PEOPLE, found, strict=True):
        assert estimate.value == pytest.approx(balanced(person), abs=0.1)
    good, bad = found[:4], found[4:]
    assert min(person.low for person in good) > max(person.high for person in bad)
    assert found[6].high < 0.5


def test_interval_covers_the_true_accuracy() -> None:
    covered = [
        estimate.low <= balanced(person) <= estimate.high
        for seed in range(40)
        for person, estimate in zip(
            PEOPLE[:5],
            accuracies(simulated(PEOPLE[:5], items=200, overlap=3, gold=40, seed=seed), people=5),
            strict=True,
        )
    ]

    # 200 intervals; the prior draws the random person towards 0.8
    assert sum(covered) / len(covered) > 0.88


def test_person_with_one_verdict_is_close_to_the_prior() -> None:
    verdicts = Verdicts(
        item=np.array([0, 0]),
        person=np.array([0, 1]),
        up=np.array([1.0, 0.0]),
        truth=np.array([np.nan]),
    )

    [first, second] = accuracies(verdicts, people=2)

    assert first.value == pytest.approx(0.8, abs=0.06)
    assert first.high - first.low > 0.3
    assert second.value == pytest.approx(0.8, abs=0.06)


def test_no_verdicts_give_nothing() -> None:
    nothing = np.array([], dtype=int)
    empty = Verdicts(item=nothing, person=nothing, up=nothing * 1.0, truth=nothing * 1.0)

    assert accuracies(empty, people=0) == []
    assert accuracies(empty, people=1)[0] == Accuracy(
        pytest.approx(0.8), pytest.approx(0.46, abs=0.2), pytest.approx(0.95, abs=0.05)
    )
