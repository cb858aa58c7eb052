"""Do two versions earn different shares of ups? A test that may be read after every vote.

The E-variables of Turner, Ly and Grünwald 2024 (arXiv 2106.02693) for two streams of Bernoulli
trials. Votes are taken in blocks of a fixed make-up, so many of the candidate and so many of live.
Before a block both rates are estimated from the blocks before it, θ꜀ and θₗ; with θ₀, their mean
over the block, a block of votes y multiplies the evidence by

    S = Π p(y | θ꜀) · Π p(y | θₗ) / Π p(y | θ₀)

over the candidate's votes, live's and all. Whatever rate the two have in common, S is at most 1 in
the mean, so the running product reaches 1/α with a chance of at most α, however often somebody
looks (Ville's inequality).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from feedback_app.serving.stats.sequential import ALPHA, FAR, State

#: Ups and downs that each rate is thought to have had before the first vote. The test holds for
#: any; 1 takes fewer votes to tell 60 from 80 % than 0.5 or the paper's 0.18 (in the median 83
#: blocks of two against 91 and 108).
PRIOR = 1.0
#: A block has at most so many votes of the larger side for one of the smaller.
LARGEST_RATIO = 20

if TYPE_CHECKING:
    # Imported by the functions that use it: processes that read no split need no numpy (25 MB).
    import numpy as np

    Counts = np.ndarray[Any, np.dtype[np.int64]]
    Floats = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Ballot:
    """One counted vote, and the percentage that went to the candidate when its side was drawn."""

    candidate: bool
    up: bool
    percent: int


@dataclass(frozen=True)
class Reading:
    """The test as it stands; `to_go` is about how many more votes it would take if both rates
    stayed as they are (None: decided, or too many to say)."""

    state: State
    to_go: int | None


@dataclass(frozen=True)
class Blocks:
    """Whole blocks, in order: ups and votes of either side, each of shape (..., blocks)."""

    ups: Counts
    votes: Counts
    live_ups: Counts
    live_votes: Counts


def estimates(ups: Counts, votes: Counts) -> Floats:
    """The rate before each block, from the blocks before it."""
    found: Floats = (PRIOR + ups.cumsum(axis=-1) - ups) / (
        2 * PRIOR + votes.cumsum(axis=-1) - votes
    )
    return found


def log_evidence(blocks: Blocks) -> Floats:
    """log E after each block, in nats, shape (..., blocks)."""
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


def make_up(percent: int) -> tuple[int, int]:
    """How many of the candidate's votes and of live's make a block at this percentage."""
    share = percent / 100
    if share <= 0.5:
        return 1, min(LARGEST_RATIO, round((1 - share) / share))
    return min(LARGEST_RATIO, round(share / (1 - share))), 1


def blocks_of(ballots: Iterable[Ballot]) -> Blocks:
    """Votes in the order they were counted, as blocks; what fills none yet waits.

    A block's make-up follows from the percentage of the first vote that no block has taken: it is
    known before any vote of the block is.
    """
    import numpy as np

    waiting: dict[bool, list[Ballot]] = {True: [], False: []}
    rows: list[tuple[int, int, int, int]] = []
    wanted: tuple[int, int] | None = None
    for ballot in ballots:
        waiting[ballot.candidate].append(ballot)
        while wanted or waiting[True] or waiting[False]:
            if wanted is None:
                wanted = make_up((waiting[True] or waiting[False])[0].percent)
            ours, lives = wanted
            if len(waiting[True]) < ours or len(waiting[False]) < lives:
                break
            taken = waiting[True][:ours], waiting[False][:lives]
            del waiting[True][:ours], waiting[False][:lives]
            rows.append((sum(b.up for b in taken[0]), ours, sum(b.up for b in taken[1]), lives))
            wanted = None
    columns = np.array(rows, dtype=np.int64).reshape(len(rows), 4).T
    return Blocks(*columns)


def read(ballots: Iterable[Ballot], *, alpha: float = ALPHA) -> Reading:
    """The test after these votes. Once it has decided, later votes do not undo that."""
    import numpy as np

    blocks = blocks_of(ballots)
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
    """Votes until the evidence has grown by `missing` nats at the rates seen; None beyond FAR."""
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
    """KL(rate ‖ other) of two Bernoulli distributions, in nats."""
    return rate * math.log(rate / other) + (1 - rate) * math.log((1 - rate) / (1 - other))
