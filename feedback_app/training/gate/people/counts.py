"""What people have said of a batch of blind pairs, as the sequential test reads it."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from statistics import fmean
from typing import Any

from feedback_app.training.gate.people.limits import work_is_shared
from feedback_app.training.models import PairBatch, PairVote
from feedback_app.training.querysets import SKIPS_TO_LEAVE_OUT

#: How much a choice counts for the candidate.
VALUES: dict[str, float] = {
    PairVote.Choice.CANDIDATE: 1.0,
    PairVote.Choice.TIE: 0.5,
    PairVote.Choice.LIVE: 0.0,
}


@dataclass(frozen=True)
class PairCounts:
    """The votes on a batch (an evaluation's report, key "people").

    A pair is one observation, however many people judged it: the mean of their choices. `wins` and
    `losses` are the sums over the `judged` pairs that were no tie. `same` prompts got the same
    answer from both versions and are not among the `pairs`; `left_out` ones were only skipped.
    `end`: why the batch has ended (PairBatch.End), "" while it is open, or FAILED where no pair
    was shown, as a guard had failed the version. `largest` is how many pairs the person who judged
    most has judged; it counts where the work is `shared` (limits.py).
    """

    pairs: int
    same: int
    judged: int = 0
    wins: float = 0.0
    losses: float = 0.0
    ties: int = 0
    left_out: int = 0
    end: str = ""
    largest: int = 0
    shared: bool = False

    @property
    def of_one_person(self) -> bool:
        """Return whether one person has judged more than half, though others could have."""
        return self.shared and 2 * self.largest > self.judged

    @property
    def finished(self) -> bool:
        """Return whether there is nothing left to judge."""
        return self.judged + self.left_out >= self.pairs

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


#: `PairCounts.end` of a version that a guard has failed.
FAILED = "failed"


def pair_counts_of(batch: PairBatch) -> PairCounts:
    """Return the votes on a batch: those at its end, or the present ones while it is open."""
    if batch.end:
        return PairCounts(**batch.counts)
    rows = PairVote.objects.filter(pair__batch=batch).order_by()
    votes = list(rows.values_list("pair", "choice", "user"))
    people = Counter(user for _, choice, user in votes if choice in VALUES)
    return replace(
        pair_counts(
            ((pair, choice) for pair, choice, _ in votes),
            pairs=batch.pairs.count(),
            same=batch.same,
        ),
        largest=max(people.values(), default=0),
        shared=work_is_shared(batch.project),
    )


def pair_counts(votes: Iterable[tuple[Any, str]], *, pairs: int, same: int) -> PairCounts:
    """Return the counts of (pair, choice) rows."""
    by_pair: dict[Any, list[str]] = {}
    for pair, choice in votes:
        by_pair.setdefault(pair, []).append(choice)
    values, left_out = [], 0
    for choices in by_pair.values():
        said = [VALUES[choice] for choice in choices if choice in VALUES]
        if said:
            values.append(fmean(said))
        elif len(choices) >= SKIPS_TO_LEAVE_OUT:
            left_out += 1
    decided = [value for value in values if value != 0.5]
    return PairCounts(
        pairs=pairs,
        same=same,
        judged=len(values),
        wins=sum(decided),
        losses=sum(1 - value for value in decided),
        ties=len(values) - len(decided),
        left_out=left_out,
    )
