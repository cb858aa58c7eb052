"""The gate's tests keep their level and agree with SciPy and with closed forms."""

import math
import random
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from feedback_app.training.gate.statistics import (
    MeanTest,
    Scored,
    area,
    area_by_prompt,
    holm,
    p_better_than_chance,
    prompts_needed,
    student_quantile,
    votes_needed,
)

WORLDS = 300


def false_alarms(draw: Callable[[random.Random], float], *, level: float) -> float:
    """Return in which share of worlds `draw`, a p-value under a true null hypothesis, is at most
    `level`."""
    return sum(draw(random.Random(seed)) <= level for seed in range(WORLDS)) / WORLDS


def most(level: float) -> float:
    """Return the level plus four standard errors of a share of so many worlds."""
    return level + 4 * math.sqrt(level * (1 - level) / WORLDS)


@pytest.mark.parametrize("n", [15, 60])
def test_mean_at_its_border_is_rarely_found_beyond_it(n: int) -> None:
    def draw(rng: random.Random) -> float:
        values = [rng.expovariate(1) for _ in range(n)]  # skewed, mean 1
        return MeanTest(values, seed=1).p_below(1.0)

    # a mean of few skewed values is the hard case for every test of a mean
    hits = sum(draw(random.Random(seed)) <= 0.05 for seed in range(WORLDS))
    assert hits / WORLDS <= 0.12


@pytest.mark.parametrize("n", [5, 8, 15, 60])
def test_symmetric_mean_keeps_its_level(n: int) -> None:
    found = false_alarms(
        lambda rng: MeanTest([rng.gauss(0, 1) for _ in range(n)], seed=1).p_above(0.0), level=0.05
    )
    assert 0.01 <= found <= most(0.05)


def test_two_prompts_that_differ_prove_nothing_however_many_do_not() -> None:
    two = MeanTest([0.3, 0.3] + [0.0] * 38)
    # by chance both have the same sign, and the right one, in a quarter of the cases
    assert two.p_above(0.0) == pytest.approx(0.25, abs=0.03)
    assert two.estimate(0.025).low <= 0.0
    assert MeanTest([0.3] * 9 + [0.0] * 31).p_above(0.0) < 0.01


@pytest.mark.parametrize("differ", [0.05, 0.1, 0.3])
def test_mean_of_few_prompts_that_differ_keeps_its_level(differ: float) -> None:
    """Versions that are nearly the same answer most prompts alike."""

    def draw(rng: random.Random) -> float:
        values = [rng.choice((-0.3, 0.3)) if rng.random() < differ else 0.0 for _ in range(40)]
        return MeanTest(values, seed=1).p_above(0.0)

    assert false_alarms(draw, level=0.025) <= most(0.025)


@pytest.mark.parametrize("n", [10, 20, 40, 100])
@pytest.mark.parametrize("harmed", [0.1, 0.2])
def test_share_at_its_margin_is_rarely_called_harmless(n: int, harmed: float) -> None:
    """As many prompts are worse as the margin allows: passing is an error."""

    def draw(rng: random.Random) -> float:
        values = [-1.0 if rng.random() < harmed else 0.0 for _ in range(n)]
        return MeanTest(values, reach=1).p_above(-harmed)

    assert false_alarms(draw, level=0.05) <= most(0.05)


@pytest.mark.parametrize(("n", "margin"), [(40, 0.1), (90, 0.1), (155, 0.1), (209, 0.05)])
def test_share_keeps_the_level_of_one_look_where_prompts_are_harmed_as_a_whole(
    n: int, margin: float
) -> None:
    """Exact: prompts are harmed by 1 or by nothing, as many as the margin allows."""
    harmed = np.arange(n // 4)
    passed = [
        MeanTest([-1.0] * k + [0.0] * (n - k), reach=1).p_above(-margin) <= 0.025 for k in harmed
    ]
    assert stats.binom.pmf(harmed, n, margin)[passed].sum() <= 0.026


@pytest.mark.parametrize("values", [[0.0] * 30 + [-1.0] * 4, [1.0] * 30 + [-1.0] * 4, [0.5] * 30])
def test_bounds_of_shares_and_their_p_values_say_the_same(values: list[float]) -> None:
    test = MeanTest(values, reach=1)
    found = test.estimate(0.025)
    assert test.p_above(found.low - 0.001) < 0.025 < test.p_above(found.low + 0.001)
    assert test.p_below(found.high + 0.001) < 0.025 < test.p_below(found.high - 0.001)


def test_equal_values_prove_little_in_a_small_sample() -> None:
    few, many = MeanTest([0.0] * 6, reach=1), MeanTest([0.0] * 60, reach=1)
    assert few.p_above(-0.1) > 0.2
    assert few.estimate(0.05).low < -0.1
    assert many.p_above(-0.1) < 0.01
    assert many.estimate(0.05).low > -0.05


def test_interval_agrees_with_the_bca_bootstrap_of_scipy() -> None:
    values = np.random.default_rng(3).gamma(2.0, size=80)
    ours = MeanTest(list(values), seed=0).estimate(0.05)
    theirs = stats.bootstrap(
        (values,), np.mean, confidence_level=0.9, method="BCa", rng=np.random.default_rng(0)
    ).confidence_interval
    width = theirs.high - theirs.low
    assert abs(ours.low - theirs.low) < 0.12 * width
    assert abs(ours.high - theirs.high) < 0.12 * width


def test_few_values_agree_with_the_permutation_test_of_scipy() -> None:
    values = np.array([0.3, 1.2, -0.4, 0.9, 1.4, 0.2, 0.7])
    theirs = stats.permutation_test(
        (values,), np.mean, permutation_type="samples", alternative="greater", n_resamples=np.inf
    )
    assert MeanTest(list(values)).p_above(0.0) == pytest.approx(theirs.pvalue)


def test_bounds_and_p_values_say_the_same() -> None:
    rng = random.Random(5)
    for n, reach in ((8, None), (40, None), (40, 1.0)):
        test = MeanTest([rng.uniform(-0.5, 0.8) for _ in range(n)], reach=reach, seed=2)
        low = test.estimate(0.05).low
        assert test.p_above(low - 0.01) <= 0.05 + 1e-9
        assert test.p_above(low + 0.01) > 0.05 - 1e-9


def test_too_few_values_have_no_bound() -> None:
    assert MeanTest([0.1, 0.2, 0.3]).estimate(0.05).low == -math.inf
    with pytest.raises(ValueError, match="two values"):
        MeanTest([0.1])


def test_many_values_need_no_bootstrap() -> None:
    values = list(np.random.default_rng(1).normal(0.1, 1, size=600))
    expected = stats.ttest_1samp(values, 0.0, alternative="greater").pvalue
    assert MeanTest(values).p_above(0.0) == pytest.approx(expected)


def test_student_quantile_is_that_of_scipy() -> None:
    assert student_quantile(0.95, 7) == pytest.approx(stats.t.ppf(0.95, 7))


def test_holm_is_that_of_the_paper() -> None:
    adjusted = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert adjusted == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02})
    assert holm({"a": 0.9, "b": 0.8}) == {"a": 1.0, "b": 1.0}


# -- areas


def world(rng: random.Random, *, prompts: int, apart: float = 0.0, each: int = 2) -> Scored:
    """Votes whose labels and scores are alike within a prompt, independent of each other."""
    scores, labels, names = [], [], []
    for number in range(prompts):
        mood, taste = rng.gauss(0, 1), rng.random()
        for _ in range(each):
            label = rng.random() < taste
            scores.append(mood + rng.gauss(0, 0.5) + apart * label)
            labels.append(label)
            names.append(number)
    return Scored(scores, labels, names)


def test_area_is_that_of_mann_and_whitney() -> None:
    rng = random.Random(2)
    scores = [round(rng.random(), 1) for _ in range(50)]  # with ties
    labels = [rng.random() < 0.4 for _ in scores]
    up = [s for s, label in zip(scores, labels, strict=True) if label]
    down = [s for s, label in zip(scores, labels, strict=True) if not label]
    expected = stats.mannwhitneyu(up, down).statistic / (len(up) * len(down))
    assert area(scores, labels) == pytest.approx(expected)


def test_useless_scores_are_rarely_better_than_chance_though_prompts_are_clusters() -> None:
    found = false_alarms(
        lambda rng: p_better_than_chance(world(rng, prompts=25, each=4)), level=0.05
    )
    assert 0.01 <= found <= most(0.05)


@pytest.mark.parametrize("each", [1, 2])
def test_one_or_two_votes_of_a_class_are_never_better_than_chance(each: int) -> None:
    labels = [True] * each + [False] * each
    scored = Scored([float(label) for label in labels], labels, list(range(2 * each)))
    assert p_better_than_chance(scored) > 0.1


def paired(rng: random.Random, *, prompts: int, apart: float = 0.0) -> Scored:
    """Votes on a liked and a disliked answer to each prompt, in this order."""
    labels = [True, False] * prompts
    scores = [rng.gauss(apart * label, 1) for label in labels]
    return Scored(scores, labels, [number // 2 for number in range(len(labels))])


def test_prompts_with_the_same_labels_can_show_that_ranking_is_better_than_chance() -> None:
    perfect = Scored([1.0, 0.0] * 35, [True, False] * 35, [n // 2 for n in range(70)])
    assert p_better_than_chance(perfect) < 0.001
    assert p_better_than_chance(paired(random.Random(1), prompts=35, apart=1.5)) < 0.01
    found = false_alarms(lambda rng: p_better_than_chance(paired(rng, prompts=35)), level=0.05)
    assert 0.01 <= found <= most(0.05)


def test_good_scores_are_found() -> None:
    assert p_better_than_chance(world(random.Random(1), prompts=60, apart=2.0)) < 0.01


def test_values_by_prompt_have_the_area_as_their_mean_and_its_spread_as_theirs() -> None:
    areas, errors = [], []
    for seed in range(150):
        scored = world(random.Random(seed), prompts=40, apart=0.8)
        values = area_by_prompt(scored)
        assert np.mean(values) == pytest.approx(area(scored.scores, scored.labels))
        areas.append(np.mean(values))
        errors.append(np.std(values, ddof=1) / math.sqrt(len(values)))
    assert np.mean(errors) == pytest.approx(np.std(areas), rel=0.2)


# -- power


def test_so_many_prompts_do_decide() -> None:
    n = prompts_needed(deviation=0.4, distance=0.1, level=0.05)
    rng = np.random.default_rng(0)
    found = [
        MeanTest(list(rng.normal(0.1, 0.4, size=n)), seed=1).p_above(0.0) <= 0.05
        for _ in range(200)
    ]
    assert 0.7 <= np.mean(found) <= 0.9


def test_so_many_votes_do_show_a_ranking() -> None:
    n = votes_needed(area=0.65, liked_share=0.4, level=0.05)
    apart = math.sqrt(2) * float(stats.norm.ppf(0.65))
    rng = random.Random(0)
    found = []
    for _ in range(100):
        labels = [rng.random() < 0.4 for _ in range(n)]
        scores = [rng.gauss(apart * label, 1) for label in labels]
        found.append(p_better_than_chance(Scored(scores, labels, list(range(n)))) <= 0.05)
    assert 0.68 <= np.mean(found) <= 0.92
    assert votes_needed(area=0.8, liked_share=0.4, level=0.05) < n
    assert votes_needed(area=0.65, liked_share=0.05, level=0.05) > n
