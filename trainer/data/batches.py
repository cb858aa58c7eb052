"""Batching: the examples of each step, and the mismatched completion of each prompt."""

import hashlib
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from trainer.data.tokenise import Tokenised

#: Examples of a block, within which each completion serves as one mismatch: at least, on average
#: beyond that, at most. Small, because the last block is paired again when examples are added.
_BLOCK_LEAST, _BLOCK_MORE, _BLOCK_MOST = 8, 8, 32

#: What a step is made of: single examples, or an up and a down of one prompt.
Unit = Literal["example", "pair"]


@dataclass(frozen=True)
class Step:
    """One optimiser step: indices of its examples, and for each the index of the example whose
    completion is scored on its prompt for z₀ (empty where the loss needs none). In a step of
    pairs, an up and its down are adjacent."""

    examples: tuple[int, ...]
    mismatched: tuple[int, ...] = ()


#: The steps of an epoch, counted from 0.
StepsOf = Callable[[int], Sequence[Step]]


@dataclass(frozen=True)
class Sampler:
    """Makes the steps of an epoch: a fresh order and fresh pairs each time.

    Everything depends on (seed, epoch) alone, so a resumed run finds its place by counting. Steps
    differ in size by at most one unit: a remainder of one or two examples as a step of its own
    would move the weights as far as a full batch.
    """

    examples: Sequence[Tokenised]
    batch_size: int
    seed: int
    unit: Unit = "example"
    mismatched: bool = True

    def steps_per_epoch(self) -> int:
        """Return the optimiser steps of one pass."""
        if self.unit == "example":
            return steps_per_epoch(len(self.examples), self.batch_size)
        return steps_per_epoch(pairs_per_epoch(self.examples), max(1, self.batch_size // 2))

    def steps(self, epoch: int) -> list[Step]:
        """Return the steps of one epoch. Each class is spread evenly over it, so that a rare class
        does not miss most steps by chance."""
        rng = random.Random(f"{self.seed}/{epoch}")  # noqa: S311 - an order, not a secret
        units: list[tuple[int, ...]]
        if self.unit == "pair":
            units = [*preference_pairs(self.examples, rng)]
            rng.shuffle(units)
        else:
            units = [(index,) for index in _interleave(self.examples, rng)]
        partners = epoch_pairs(self.examples, self.seed, epoch) if self.mismatched else ()
        count = self.steps_per_epoch()
        bounds = [len(units) * step // count for step in range(count + 1)]
        steps = []
        for low, high in pairwise(bounds):
            chosen = tuple(index for unit in units[low:high] for index in unit)
            steps.append(Step(chosen, tuple(partners[index] for index in chosen if partners)))
        return steps


def steps_per_epoch(units: int, batch_size: int) -> int:
    """Return the optimiser steps that one pass over so many units takes; also the number `plan`
    promises."""
    return -(-units // batch_size)


def epoch_pairs(examples: Sequence[Tokenised], seed: int, epoch: int) -> tuple[int, ...]:
    """For each example the index of one with another prompt, whose completion is its mismatch.

    Pairs are made within blocks of neighbouring examples. Where a block ends is decided by the
    examples' ids, not by their number: examples that are added later, or taken out, leave the
    pairs of all other blocks as they were, so that the reference log-probabilities of earlier runs
    serve again. Within a block every completion serves once wherever that is possible. Raises
    ValueError when all examples have the same prompt.
    """
    partners = [0] * len(examples)
    for block in _blocks(examples):
        rng = random.Random(f"{seed}/{epoch}/{examples[block[0]].id}")  # noqa: S311
        for index, partner in zip(block, _pairs_within(examples, block, rng), strict=True):
            partners[index] = _neighbour(examples, index) if partner is None else partner
    return tuple(partners)


def preference_pairs(examples: Sequence[Tokenised], rng: random.Random) -> list[tuple[int, int]]:
    """Return (up, down) of one prompt, for every prompt that has both: as many as the larger side
    holds, so that each of its examples is used; the smaller side serves again."""
    pairs = []
    for ups, downs in _both_sides(examples):
        rng.shuffle(ups)
        rng.shuffle(downs)
        pairs += [
            (ups[number % len(ups)], downs[number % len(downs)])
            for number in range(max(len(ups), len(downs)))
        ]
    return pairs


def pairs_per_epoch(examples: Sequence[Tokenised]) -> int:
    """Return how many pairs `preference_pairs` makes."""
    return sum(max(len(ups), len(downs)) for ups, downs in _both_sides(examples))


def _both_sides(examples: Sequence[Tokenised]) -> list[tuple[list[int], list[int]]]:
    sides: dict[str, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
    for index, example in enumerate(examples):
        sides[example.prompt_key][0 if example.label else 1].append(index)
    return [(ups, downs) for ups, downs in sides.values() if ups and downs]


def _blocks(examples: Sequence[Tokenised]) -> list[list[int]]:
    blocks: list[list[int]] = [[]]
    for index, example in enumerate(examples):
        blocks[-1].append(index)
        size = len(blocks[-1])
        mark = hashlib.blake2b(example.id.encode(), digest_size=4).digest()
        at_mark = int.from_bytes(mark, "big") % _BLOCK_MORE == 0
        if (size >= _BLOCK_LEAST and at_mark) or size == _BLOCK_MOST:
            blocks.append([])
    return [block for block in blocks if block]


def _pairs_within(
    examples: Sequence[Tokenised], block: Sequence[int], rng: random.Random
) -> list[int | None]:
    """Return the partners of a block's examples; None for all of them where the block has one
    prompt.

    With the examples sorted by prompt and shifted by the size of the largest group, no example is
    paired with its own prompt unless one prompt has more than half of the block; such examples take
    any other.
    """
    groups = Counter(examples[index].prompt_key for index in block)
    if len(groups) == 1:
        return [None] * len(block)
    shuffled = list(block)
    rng.shuffle(shuffled)
    prompts = list(groups)
    rng.shuffle(prompts)
    place = {key: (-groups[key], number) for number, key in enumerate(prompts)}
    order = sorted(shuffled, key=lambda index: place[examples[index].prompt_key])
    turn = max(groups.values())
    partner: dict[int, int] = {}
    for position, index in enumerate(order):
        other = order[(position + turn) % len(order)]
        if examples[other].prompt_key == examples[index].prompt_key:
            key = examples[index].prompt_key
            other = rng.choice([i for i in order if examples[i].prompt_key != key])
        partner[index] = other
    return [partner[index] for index in block]


def _neighbour(examples: Sequence[Tokenised], index: int) -> int:
    """Return the nearest earlier example with another prompt (earlier ones stay what they are),
    else the nearest later one."""
    key = examples[index].prompt_key
    for other in (*range(index - 1, -1, -1), *range(index + 1, len(examples))):
        if examples[other].prompt_key != key:
            return other
    raise ValueError("all examples have the same prompt: there is no mismatched pair")


def _interleave(examples: Sequence[Tokenised], rng: random.Random) -> list[int]:
    """Return a fresh order that spreads both classes evenly and keeps the completions of a prompt
    together: their prompt then costs once."""
    placed: list[tuple[float, int]] = []
    for label in (True, False):
        members = [index for index, example in enumerate(examples) if example.label is label]
        rng.shuffle(members)
        placed += [
            ((position + rng.random()) / len(members), index)
            for position, index in enumerate(members)
        ]
    rng.shuffle(placed)
    where: dict[str, float] = {}
    for place, index in placed:  # a prompt's place is that of one of its completions
        where.setdefault(examples[index].prompt_key, place)
    return [
        index
        for _, index in sorted(
            placed, key=lambda item: (where[examples[item[1]].prompt_key], item[0])
        )
    ]
