"""Which answer of a blind pair is on the left, and what a choice of a side means."""

from dataclasses import dataclass

from django.utils.crypto import salted_hmac

from feedback_app.accounts.models import User
from feedback_app.training.models import BlindPair, PairVote

_SALT = "feedback_app.training.gate.people"


@dataclass(frozen=True)
class Sides:
    """The two texts as one person sees them, without a word about the versions. `chosen`: the
    person's choice as text, or ""."""

    left: str
    right: str
    chosen: str


def candidate_is_left(pair: BlindPair, user: User) -> bool:
    """Return a coin toss for this pair and person, from a keyed hash: the same on each request,
    and without the key nobody can compute it."""
    return salted_hmac(_SALT, f"{pair.pk}:{user.pk}", algorithm="sha256").digest()[0] % 2 == 0


def sides_of(pair: BlindPair, user: User, vote: PairVote | None = None) -> Sides:
    """Return the texts as this person sees them, with their choice if they have made one."""
    texts = pair.candidate_text, pair.live_text
    left, right = texts if candidate_is_left(pair, user) else texts[::-1]
    return Sides(left, right, vote.get_side_display() if vote else "")


def choice_of(pair: BlindPair, user: User, side: PairVote.Side) -> PairVote.Choice:
    """Return what a choice on the page means."""
    if side in (PairVote.Side.LEFT, PairVote.Side.RIGHT):
        candidate = (side == PairVote.Side.LEFT) == candidate_is_left(pair, user)
        return PairVote.Choice.CANDIDATE if candidate else PairVote.Choice.LIVE
    return PairVote.Choice(side.value)
