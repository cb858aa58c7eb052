"""Property tests of steps and mismatched pairs."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.data.batches import Sampler, Step, epoch_pairs, steps_per_epoch
from trainer.data.tokenise import Tokenised


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
    """Draw 2 to 40 examples with at least two prompts and both labels."""
    count = draw(st.integers(2, 40))
    prompts = draw(st.lists(st.integers(0, 9), min_size=count, max_size=count))
    labels = draw(st.lists(st.booleans(), min_size=count, max_size=count))
    prompts[:2], labels[:2] = [0, 1], [True, False]
    return [
        tokenised(number, prompt=prompt, label=label)
        for number, (prompt, label) in enumerate(zip(prompts, labels, strict=True))
    ]


def steps(examples: list[Tokenised], *, batch_size: int, seed: int, epoch: int = 0) -> list[Step]:
    return Sampler(examples, batch_size=batch_size, seed=seed).steps(epoch)


@pytest.mark.slow
@given(examples=snapshots(), batch_size=st.integers(1, 9), seed=st.integers(0, 99))
def test_epoch_visits_every_example_once_and_pairs_across_prompts(
    examples: list[Tokenised], batch_size: int, seed: int
) -> None:
    sampler = Sampler(examples, batch_size=batch_size, seed=seed)
    found = sampler.steps(0)
    visited = [index for step in found for index in step.examples]
    assert sorted(visited) == list(range(len(examples)))
    assert len(found) == sampler.steps_per_epoch() == steps_per_epoch(len(examples), batch_size)
    sizes = [len(step.examples) for step in found]
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 1
    for step in found:
        assert len(step.mismatched) == len(step.examples)
        for index, other in zip(step.examples, step.mismatched, strict=True):
            assert examples[index].prompt_key != examples[other].prompt_key


@given(examples=snapshots(), seed=st.integers(0, 99))
def test_pairs_use_each_completion_once_where_possible(
    examples: list[Tokenised], seed: int
) -> None:
    found = epoch_pairs(examples[:8], seed, 0)  # one block
    largest = max(Counter(example.prompt_key for example in examples[:8]).values())
    if 2 * largest <= len(found):
        assert sorted(found) == list(range(len(found)))


def test_block_of_one_prompt_is_paired_with_earlier_examples() -> None:
    examples = [tokenised(n, prompt=min(n, 5), label=True) for n in range(400)]
    pairs = epoch_pairs(examples, 0, 0)
    assert {examples[pairs[n]].prompt_key for n in range(300, 400)} == {"p4"}
    assert all(examples[n].prompt_key != examples[pairs[n]].prompt_key for n in range(400))


def test_snapshot_of_one_prompt_has_no_pairs() -> None:
    examples = [tokenised(n, prompt=0, label=True) for n in range(3)]
    with pytest.raises(ValueError, match="same prompt"):
        epoch_pairs(examples, 0, 0)


def test_later_examples_do_not_change_the_pairs_of_earlier_ones() -> None:
    examples = [tokenised(n, prompt=n // 2, label=n % 3 == 0) for n in range(10_500)]
    before, after = epoch_pairs(examples[:10_000], 7, 1), epoch_pairs(examples, 7, 1)
    changed = sum(a != b for a, b in zip(before, after, strict=False))
    # log-probabilities of the new examples, their pairs, and the pairs of the last block
    assert (500 + 500 + changed) / (2 * 10_500) <= 0.06

    without = [*examples[:5_000], *examples[5_001:10_000]]
    fewer = [without[index].id for index in epoch_pairs(without, 7, 1)]
    kept = {
        example.id: examples[partner].id for example, partner in zip(examples, before, strict=False)
    }
    moved = sum(kept[example.id] != other for example, other in zip(without, fewer, strict=True))
    assert moved <= 2 * 32


def test_pairs_differ_between_epochs() -> None:
    examples = [tokenised(n, prompt=n, label=True) for n in range(200)]
    first, second = epoch_pairs(examples, 0, 0), epoch_pairs(examples, 0, 1)
    assert sum(a == b for a, b in zip(first, second, strict=True)) < 50
    assert first == epoch_pairs(examples, 0, 0)


def test_completions_of_one_prompt_are_adjacent() -> None:
    examples = [tokenised(n, prompt=n % 8, label=n % 2 == 0) for n in range(32)]
    for step in steps(examples, batch_size=8, seed=3):
        assert len({examples[index].prompt_key for index in step.examples}) == 2


def test_preference_pairs_use_every_example_of_prompts_with_both_labels() -> None:
    examples = [
        tokenised(n, prompt=prompt, label=label)
        for n, (prompt, label) in enumerate(
            [
                (0, True),
                (0, False),
                (0, False),
                (1, True),
                (2, False),
                (0, False),
                (3, True),
                (3, False),
            ]
        )
    ]
    sampler = Sampler(examples, batch_size=4, seed=0, unit="pair", mismatched=False)
    found = sampler.steps(0)
    pairs = [pair for step in found for pair in batched(step.examples)]
    assert sorted(pairs) == [(0, 1), (0, 2), (0, 5), (6, 7)]
    assert [len(step.examples) for step in found] == [4, 4]
    assert all(step.mismatched == () for step in found)
    assert sampler.steps_per_epoch() == 2


def batched(indices: tuple[int, ...]) -> list[tuple[int, int]]:
    return list(zip(indices[0::2], indices[1::2], strict=True))


def test_epochs_differ_and_a_seed_is_reproducible() -> None:
    examples = [tokenised(n, prompt=n, label=n % 2 == 0) for n in range(20)]
    first = steps(examples, batch_size=4, seed=5, epoch=0)
    assert first == steps(examples, batch_size=4, seed=5, epoch=0)
    assert first != steps(examples, batch_size=4, seed=5, epoch=1)
    assert first != steps(examples, batch_size=4, seed=6, epoch=0)


@given(seed=st.integers(0, 500))
def test_rare_class_is_spread_over_the_epoch(seed: int) -> None:
    examples = [tokenised(n, prompt=n, label=n < 8) for n in range(64)]
    found = steps(examples, batch_size=16, seed=seed, epoch=0)
    ups = [sum(examples[index].label for index in step.examples) for step in found]
    assert min(ups) >= 1
    assert max(ups) <= 3
