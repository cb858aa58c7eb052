"""Steps, mismatched pairs and micro-batches, as properties."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.batches import epoch_steps, micro_batches, mismatched_pairs, steps_per_epoch
from trainer.tokenise import Tokenised


def tokenised(number: int, *, prompt: int, label: bool) -> Tokenised:
    return Tokenised(
        id=str(number),
        prompt=(prompt,),
        completion=(number,),
        label=label,
        weight=1.0,
        prompt_key=f"p{prompt}",
    )


@st.composite
def snapshots(draw: st.DrawFn) -> list[Tokenised]:
    """2 to 40 examples over at least two prompts and both labels."""
    count = draw(st.integers(2, 40))
    prompts = draw(st.lists(st.integers(0, 9), min_size=count, max_size=count))
    labels = draw(st.lists(st.booleans(), min_size=count, max_size=count))
    prompts[:2], labels[:2] = [0, 1], [True, False]
    return [
        tokenised(number, prompt=prompt, label=label)
        for number, (prompt, label) in enumerate(zip(prompts, labels, strict=True))
    ]


@given(examples=snapshots(), batch_size=st.integers(2, 9), seed=st.integers(0, 99))
def test_epoch_visits_every_example_once_and_pairs_across_prompts(
    examples: list[Tokenised], batch_size: int, seed: int
) -> None:
    steps = epoch_steps(examples, batch_size=batch_size, seed=seed, epoch=0)
    visited = [index for step in steps for index in step.examples]
    assert sorted(visited) == list(range(len(examples)))
    assert len(steps) == steps_per_epoch(len(examples), batch_size)
    sizes = [len(step.examples) for step in steps]
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 1
    for step in steps:
        assert len(step.mismatched) == len(step.examples)
        for index, other in zip(step.examples, step.mismatched, strict=True):
            assert examples[index].prompt_key != examples[other].prompt_key


@given(examples=snapshots(), seed=st.integers(0, 99))
def test_pairs_use_each_completion_of_the_step_once_where_that_is_possible(
    examples: list[Tokenised], seed: int
) -> None:
    chosen = list(range(len(examples)))
    found = mismatched_pairs(examples, chosen, random.Random(seed))
    largest = max(Counter(example.prompt_key for example in examples).values())
    if 2 * largest <= len(examples):
        assert sorted(found) == chosen
    else:
        assert set(found) <= set(chosen)


def test_step_of_one_takes_its_mismatch_from_the_rest() -> None:
    examples = [tokenised(n, prompt=n // 2, label=True) for n in range(4)]
    (other,) = mismatched_pairs(examples, [1], random.Random(0))
    assert other in (2, 3)


def test_step_of_one_prompt_takes_its_mismatches_from_the_rest() -> None:
    examples = [tokenised(n, prompt=n // 2, label=True) for n in range(4)]
    assert set(mismatched_pairs(examples, [0, 1], random.Random(0))) <= {2, 3}


def test_snapshot_of_one_prompt_has_no_pairs() -> None:
    examples = [tokenised(n, prompt=0, label=True) for n in range(3)]
    with pytest.raises(ValueError, match="same prompt"):
        mismatched_pairs(examples, [0, 1], random.Random(0))


def test_epochs_differ_and_a_seed_repeats_itself() -> None:
    examples = [tokenised(n, prompt=n, label=n % 2 == 0) for n in range(20)]
    first = epoch_steps(examples, batch_size=4, seed=5, epoch=0)
    assert first == epoch_steps(examples, batch_size=4, seed=5, epoch=0)
    assert first != epoch_steps(examples, batch_size=4, seed=5, epoch=1)
    assert first != epoch_steps(examples, batch_size=4, seed=6, epoch=0)


@given(seed=st.integers(0, 500))
def test_rare_class_is_spread_over_the_epoch(seed: int) -> None:
    examples = [tokenised(n, prompt=n, label=n < 8) for n in range(64)]
    steps = epoch_steps(examples, batch_size=16, seed=seed, epoch=0)
    ups = [sum(examples[index].label for index in step.examples) for step in steps]
    assert min(ups) >= 1
    assert max(ups) <= 3


@given(lengths=st.lists(st.integers(1, 300), max_size=40), budget=st.integers(1, 600))
def test_micro_batches_hold_every_row_once_within_the_budget(
    lengths: list[int], budget: int
) -> None:
    groups = micro_batches(lengths, budget)
    assert sorted(position for group in groups for position in group) == list(range(len(lengths)))
    for group in groups:
        padded = len(group) * max(lengths[position] for position in group)
        assert padded <= budget or len(group) == 1


def test_micro_batches_put_like_lengths_together() -> None:
    assert micro_batches([10, 100, 12, 90], 200) == [[1, 3], [2, 0]]
