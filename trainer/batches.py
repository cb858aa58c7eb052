"""Which examples form a step, which completion is the mismatch of which prompt, and which rows
share a micro-batch."""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from trainer.tokenise import Tokenised


@dataclass(frozen=True)
class Step:
    """One optimiser step: indices of its examples, and for each the index of the example whose
    completion is scored on its prompt for z₀."""

    examples: tuple[int, ...]
    mismatched: tuple[int, ...]


def steps_per_epoch(examples: int, batch_size: int) -> int:
    """Optimiser steps that one pass takes; also the number that `plan` promises."""
    return -(-examples // batch_size)


def epoch_steps(
    examples: Sequence[Tokenised], *, batch_size: int, seed: int, epoch: int
) -> list[Step]:
    """The steps of one epoch (counted from 0): a fresh order and fresh pairs each time.

    The order depends on (seed, epoch) alone, so a resumed run finds its place by counting. Steps
    differ in size by at most one: a remainder of one or two examples as a step of its own would
    move the weights as far as a full batch. Each class is spread evenly over the epoch, so that a
    rare class does not miss most steps by chance.
    """
    rng = random.Random(f"{seed}/{epoch}")  # noqa: S311 - an order, not a secret
    order = _interleave(examples, rng)
    count = steps_per_epoch(len(order), batch_size)
    bounds = [len(order) * step // count for step in range(count + 1)]
    return [
        Step(chosen, mismatched_pairs(examples, chosen, rng))
        for chosen in (tuple(order[low:high]) for low, high in pairwise(bounds))
    ]


def mismatched_pairs(
    examples: Sequence[Tokenised], chosen: Sequence[int], rng: random.Random
) -> tuple[int, ...]:
    """For each chosen example the index of one with another prompt.

    Within the step every completion serves once wherever that is possible: sorted by prompt and
    turned by the size of the largest group, no example meets its own prompt unless one prompt
    holds more than half of the step. Those left over take a completion of another prompt from the
    step, and from the rest of the snapshot where the step has none (a step of one). Raises
    ValueError when the whole snapshot has one prompt.
    """
    groups = Counter(examples[index].prompt_key for index in chosen)
    shuffled = list(chosen)
    rng.shuffle(shuffled)
    order = sorted(
        shuffled, key=lambda i: (-groups[examples[i].prompt_key], examples[i].prompt_key)
    )
    turn = max(groups.values())
    partner: dict[int, int] = {}
    for position, index in enumerate(order):
        other = order[(position + turn) % len(order)]
        if examples[other].prompt_key == examples[index].prompt_key:
            other = _other_prompt(examples, index, order, rng)
        partner[index] = other
    return tuple(partner[index] for index in chosen)


def micro_batches(lengths: Sequence[int], token_budget: int) -> list[list[int]]:
    """Positions grouped so that rows × longest row ≤ budget, longest first; a row that is longer
    than the budget stands alone. Rows of like length share a group: little is spent on padding,
    and a memory limit that is too small shows in the first group."""
    groups: list[list[int]] = []
    for position in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if groups and (len(groups[-1]) + 1) * lengths[groups[-1][0]] <= token_budget:
            groups[-1].append(position)
        else:
            groups.append([position])
    return groups


def _interleave(examples: Sequence[Tokenised], rng: random.Random) -> list[int]:
    placed: list[tuple[float, int]] = []
    for label in (True, False):
        members = [index for index, example in enumerate(examples) if example.label is label]
        rng.shuffle(members)
        placed += [
            ((position + rng.random()) / len(members), index)
            for position, index in enumerate(members)
        ]
    return [index for _, index in sorted(placed)]


def _other_prompt(
    examples: Sequence[Tokenised], index: int, order: Sequence[int], rng: random.Random
) -> int:
    key = examples[index].prompt_key
    others = [i for i in order if examples[i].prompt_key != key]
    others = others or [i for i, example in enumerate(examples) if example.prompt_key != key]
    if not others:
        raise ValueError("all examples have the same prompt: there is no mismatched pair")
    return rng.choice(others)
