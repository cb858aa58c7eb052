"""Sequential test of whether two versions get different shares of ups, valid after every vote.

The E-variables of Turner, Ly and Grünwald 2024 (arXiv 2106.02693) for two streams of Bernoulli
trials. Votes are grouped in blocks with fixed numbers of votes of the candidate and of live. Before
a block both rates, θ꜀ and θₗ, are estimated from the blocks before it; with θ₀, their mean over the
block, a block of votes y multiplies the evidence by

    S = Π p(y | θ꜀) · Π p(y | θₗ) / Π p(y | θ₀)

over the candidate's votes, live's and all. For any common rate, S has an expectation of at most 1,
so the product reaches 1/α with a probability of at most α, however often it is read (Ville's
inequality).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from feedback_app.training.stats.sequential import ALPHA, FAR, State

#: Prior ups and downs of each rate. The test is valid for any; 1 needs fewer votes to separate 60
#: from 80 % than 0.5 or the paper's 0.18 (in the median 83 blocks of two against 91 and 108).
PRIOR = 1.0
#: The most votes of the larger side per vote of the smaller side in a block.
LARGEST_RATIO = 20

if TYPE_CHECKING:
    # imported in the functions that use it: other processes need no numpy (25 MB)
    import numpy as np

    Counts = np.ndarray[Any, np.dtype[np.int64]]
    Floats = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class SplitVote:
    """One counted vote, and the candidate's percentage when its side was drawn."""

    candidate: bool
    up: bool
    percent: int


@dataclass(frozen=True)
class Reading:
    """The current result; `to_go` is the estimated number of further votes at the current rates
    (None: decided, or too many)."""

    state: State
    to_go: int | None


@dataclass(frozen=True)
class Blocks:
    """Complete blocks, in order: ups and votes of each side, each of shape (..., blocks)."""

    ups: Counts
    votes: Counts
    live_ups: Counts
    live_votes: Counts


def estimates(ups: Counts, votes: Counts) -> Floats:
    """Return the rate before each block, estimated from the blocks before it."""
    found: Floats = (PRIOR + ups.cumsum(axis=-1) - ups) / (
        2 * PRIOR + votes.cumsum(axis=-1) - votes
    )
    return found


def log_evidence(blocks: Blocks) -> Floats:
    """Return log E after each block, in nats, shape (..., blocks)."""
    import numpy as np

    ours = estimates(blocks.ups, blocks.votes)
    lives = estimates(blocks.live_ups, blocks.live_votes)
    both = (blocks.votes * ours + blocks.live_votes * lives) / (blocks.votes + blocks.live_votes)

    def gain(ups: Counts, votes: Counts, rate: Floats) -> Floats:
        log_ratio = ups * np.log(rate / both) + (votes - ups) * np.log((1 - rate) / (1 - both))
        return np.asarray(log_ratio, dtype=np.float64)

    steps = gain(blocks.ups, blocks.votes, ours) + gain(blocks.live_ups, blocks.live_votes, lives)
    found: Floats = steps.cumsum(axis=-1)
    return found


def block_composition(percent: int) -> tuple[int, int]:
    """Return the votes of the candidate and of live in a block at this percentage."""
    share = percent / 100
    if share <= 0.5:
        return 1, min(LARGEST_RATIO, round((1 - share) / share))
    return min(LARGEST_RATIO, round(share / (1 - share))), 1


def blocks_of(votes: Iterable[SplitVote]) -> Blocks:
    """Return counted votes, in order, as blocks; votes of an incomplete block are left out.

    A block's composition follows from the percentage of the first vote that is in no block, so it
    is known before any vote of the block.
    """
    import numpy as np

    waiting: dict[bool, list[SplitVote]] = {True: [], False: []}
    rows: list[tuple[int, int, int, int]] = []
    wanted: tuple[int, int] | None = None
    for vote in votes:
        waiting[vote.candidate].append(vote)
        while wanted or waiting[True] or waiting[False]:
            if wanted is None:
                wanted = block_composition((waiting[True] or waiting[False])[0].percent)
            ours, lives = wanted
            if len(waiting[True]) < ours or len(waiting[False]) < lives:
                break
            taken = waiting[True][:ours], waiting[False][:lives]
            del waiting[True][:ours], waiting[False][:lives]
            rows.append((sum(b.up for b in taken[0]), ours, sum(b.up for b in taken[1]), lives))
            wanted = None
    columns = np.array(rows, dtype=np.int64).reshape(len(rows), 4).T
    return Blocks(*columns)


def read(votes: Iterable[SplitVote], *, alpha: float = ALPHA) -> Reading:
    """Return the test after these votes. Later votes do not change a decision."""
    import numpy as np

    blocks = blocks_of(votes)
    evidence = log_evidence(blocks)
    line = -math.log(alpha)
    crossed = np.flatnonzero(evidence >= line)
    if crossed.size:
        until = slice(None, int(crossed[0]) + 1)
        ours = blocks.ups[until].sum() / blocks.votes[until].sum()
        lives = blocks.live_ups[until].sum() / blocks.live_votes[until].sum()
        return Reading(State.BETTER if ours > lives else State.WORSE, None)
    missing = line - float(evidence[-1]) if evidence.size else line
    return Reading(State.OPEN, votes_to_go(blocks, missing))


def votes_to_go(blocks: Blocks, missing: float) -> int | None:
    """Return the votes until the evidence grows by `missing` nats, or None beyond FAR."""
    if not blocks.votes.size:
        return None
    ours, lives = int(blocks.votes[-1]), int(blocks.live_votes[-1])
    rate = (PRIOR + blocks.ups.sum()) / (2 * PRIOR + blocks.votes.sum())
    live = (PRIOR + blocks.live_ups.sum()) / (2 * PRIOR + blocks.live_votes.sum())
    both = (ours * rate + lives * live) / (ours + lives)
    growth = ours * divergence(rate, both) + lives * divergence(live, both)
    if growth <= 0 or missing / growth * (ours + lives) > FAR:
        return None
    return math.ceil(missing / growth) * (ours + lives)


def divergence(rate: float, other: float) -> float:
    """Return KL(rate ‖ other) of two Bernoulli distributions, in nats."""
    return rate * math.log(rate / other) + (1 - rate) * math.log((1 - rate) / (1 - other))
