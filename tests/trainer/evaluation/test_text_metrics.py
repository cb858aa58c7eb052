"""Measures of text in several scripts, and intervals, checked against known values."""

import random

import pytest

from trainer.evaluation.text_metrics import (
    distinct_bigrams,
    mean,
    mean_over_prompts,
    ranking,
    repeats,
    segments,
    words,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Don't stop – it's 5 o’clock!", ["don't", "stop", "it's", "5", "o’clock"]),
        ("Äpfel, naïve façade.", ["äpfel", "naïve", "façade"]),
        ("我喜欢茶。", ["我", "喜", "欢", "茶"]),
        ("これはペンです。", ["こ", "れ", "は", "ペン", "で", "す"]),
        ("한국어는 재미있다", ["한국어는", "재미있다"]),
        ("नमस्ते दुनिया", ["नमस्ते", "दुनिया"]),
        ("pi is 3.14 …", ["pi", "is", "3.14"]),
        ("", []),
        ("!? –", []),
    ],
)
def test_words_follow_unicode_in_every_script(text: str, expected: list[str]) -> None:
    assert words(text) == expected


def test_segments_know_their_place_in_the_text() -> None:
    text = "Ja, Äpfel: 我们!"
    assert [text[found.start : found.end] for found in segments(text)] == [
        "Ja",
        "Äpfel",
        "我",
        "们",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One two three four, five. One two three four!", True),
        ("one two three four two three four five", False),
        ("ha ha ha ha ha", True),
        ("ha ha ha", False),
        ("", False),
        # a word that occurs twice is no repetition, a sentence is
        ("人工智能很有用，所以我喜欢人工智能。", False),
        ("今天的天气非常好。今天的天气非常好。", True),
        ("これはとても良い本です。これはとても良い本です。", True),
    ],
)
def test_repetition_is_a_sequence_of_four_words_twice(text: str, expected: bool) -> None:
    assert repeats(text) is expected


def test_distinct_pairs_are_counted_over_all_texts() -> None:
    # a b, b a, a b: two different pairs of three
    assert distinct_bigrams(["a b a b"]) == pytest.approx(2 / 3)
    assert distinct_bigrams(["a b", "a b"]) == 0.5
    assert distinct_bigrams(["one", ""]) is None


def test_mean_has_a_reproducible_bootstrap_interval() -> None:
    values = [float(number) for number in range(100)]
    found = mean(values, seed=1)
    assert found == mean(values, seed=1)
    assert found.value == 49.5
    # ± 1.96 · σ/√n with σ = 28.87, n = 100 is ± 5.66
    assert found.low == pytest.approx(49.5 - 5.66, abs=1.2)
    assert found.high == pytest.approx(49.5 + 5.66, abs=1.2)
    assert mean([]).value is None


def test_interval_resamples_prompts_not_answers() -> None:
    """Ten answers that say the same are one observation."""
    rng = random.Random(1)
    prompts = [float(rng.random() < 0.5) for _ in range(50)]
    once = mean_over_prompts([[value] for value in prompts], seed=2)
    often = mean_over_prompts([[value] * 10 for value in prompts], seed=2)
    assert (often.value, often.low, often.high) == (once.value, once.low, once.high)
    assert (once.n, often.n) == (50, 500)


def test_prompts_count_alike_however_many_answers_they_have() -> None:
    assert mean_over_prompts([[0.0], [1.0, 1.0, 1.0], []]).value == 0.5
    assert mean_over_prompts([[], []]).value is None


def test_ranking_counts_pairs_and_halves_ties() -> None:
    # pairs: 2>1, 2=2 (½), 0<1, 0<2 → 1.5 of 4
    labels = [True, True, False, False]
    assert ranking([2.0, 0.0, 1.0, 2.0], labels, "abcd").value == 0.375
    assert ranking([5.0, 6.0, 1.0, 2.0], labels, "abcd").value == 1
    assert ranking([1.0], [True], "a").value is None
    assert ranking([], [], "").value is None


def test_interval_of_the_ranking_is_wider_with_fewer_prompts() -> None:
    rng = random.Random(3)
    labels = [number % 2 == 0 for number in range(100)]
    prompts = [number // 10 for number in range(100)]
    shift = [rng.gauss(0, 1) for _ in range(10)]
    rewards = [
        rng.gauss(0.3 if label else 0, 0.3) + (1 if label else -1) * shift[prompt]
        for label, prompt in zip(labels, prompts, strict=True)
    ]
    clustered = ranking(rewards, labels, prompts)
    single = ranking(rewards, labels, range(100))
    assert clustered.value == single.value
    assert width(clustered.low, clustered.high) > 1.5 * width(single.low, single.high)


def test_ranking_needs_no_resample_with_both_classes() -> None:
    found = ranking([1.0, 0.0], [True, False], "ab")
    assert found.value == 1
    assert found.low == found.high == 1


def width(low: float | None, high: float | None) -> float:
    assert low is not None
    assert high is not None
    return high - low
