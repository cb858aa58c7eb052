"""Blind pairs for the annotation page, the page of a pair and the run's page."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from feedback_app.accounts.models import User
from feedback_app.feedback.models import Project
from feedback_app.training.gate.evaluation import place
from feedback_app.training.gate.people.counts import PairCounts, pair_counts_of
from feedback_app.training.gate.people.limits import batches_at_limit
from feedback_app.training.models import Adapter, BlindPair, PairBatch, PairVote


def pairs_waiting(project: Project, user: User) -> int:
    """Return how many pairs wait for this person."""
    return len(_waiting(project, user))


def _waiting(project: Project, user: User) -> list[tuple[int, int]]:
    """Return batch and id of the pairs that wait for this person, of the oldest batch first."""
    waiting = BlindPair.objects.waiting_for(user, project).values_list("batch", "pk")
    found = list(waiting)
    full = batches_at_limit(user, project) if found else []
    return [(batch, pk) for batch, pk in found if batch not in full]


def pair_next(project: Project, user: User) -> tuple[BlindPair | None, int]:
    """Return the person's next pair, and how many wait for them.

    Of the oldest batch, in an order of their own: people who judge at the same time get different
    pairs, as the first vote on a pair is the one that helps.
    """
    waiting = _waiting(project, user)
    if not waiting:
        return None, 0
    oldest = waiting[0][0]
    chosen = min(
        (pk for batch, pk in waiting if batch == oldest), key=lambda pk: place(str(pk), user.pk)
    )
    return BlindPair.objects.get(pk=chosen), len(waiting)


def pair_last(project: Project, user: User) -> PairVote | None:
    """Return the person's last choice that can still be changed."""
    votes = PairVote.objects.filter(
        user=user,
        pair__batch__project=project,
        pair__batch__end="",
        pair__batch__adapter__discarded_at=None,
    )
    return votes.order_by("-updated_at", "-pk").first()


@dataclass(frozen=True)
class Progress:
    """How far people have come with a version's pairs."""

    batch: PairBatch
    counts: PairCounts


def batch_progress(adapter: Adapter) -> Progress | None:
    """Return the progress of a version's pairs, or None if people were not asked."""
    batch = PairBatch.objects.filter(adapter=adapter).first()
    return None if batch is None else Progress(batch, pair_counts_of(batch))


@dataclass(frozen=True)
class JudgedPair:
    """A pair with the numbers of people who preferred the candidate, live and neither."""

    pair: BlindPair
    candidate: int
    live: int
    tie: int

    @property
    def title(self) -> str:
        """Return the question."""
        return str(self.pair.messages[-1]["content"]) if self.pair.messages else ""


def pairs_judged(pairs: Iterable[BlindPair]) -> list[JudgedPair]:
    """Return pairs with the choices of people, whose votes have been prefetched."""
    found = []
    for pair in pairs:
        said = Counter(vote.choice for vote in pair.votes.all())
        choice = PairVote.Choice
        found.append(JudgedPair(pair, said[choice.CANDIDATE], said[choice.LIVE], said[choice.TIE]))
    return found
