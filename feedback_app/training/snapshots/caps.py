"""How many votes of one person a snapshot takes, and which.

The cap is a share of the votes that a snapshot is based on. Imported labels count for no person:
an admin saw the file and chose it. There is no cap for a person who is the only one to vote.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from django.core.cache import cache
from django.db.models import Count, Sum

from feedback_app.feedback.examples.rule import ExampleValues, values_of_votes
from feedback_app.feedback.models import Example, Project, Source, Split, Vote, VoteQuerySet

CHUNK = 500
TOTALS_SECONDS = 60


@dataclass(frozen=True)
class PersonCap:
    """The effect of the cap. `examples` maps completion ids to the example without the votes over
    the cap, or to None if the example is left out."""

    people: int = 0
    examples: Mapping[int, ExampleValues | None] = field(default_factory=dict)

    @property
    def left_out(self) -> int:
        return sum(values is None for values in self.examples.values())


@dataclass(frozen=True)
class SnapshotTotals:
    """Totals of a snapshot taken now: examples by split and class, summed example weights of each
    class of the training split, and what the cap leaves out."""

    counts: dict[str, int]
    train_weight_up: float
    train_weight_down: float
    left_out: int
    people: int


def snapshot_totals(project: Project, cap: PersonCap) -> SnapshotTotals:
    """Return the totals of the project's examples under a cap."""
    counts = project.examples.counts()
    training = project.examples.filter(split=Split.TRAIN).order_by()
    weights = {True: 0.0, False: 0.0} | dict(
        training.values_list("desirable").annotate(sum=Sum("weight"))
    )
    for chunk in chunks(sorted(cap.examples)):
        rows = Example.objects.filter(pk__in=chunk)
        for pk, split, desirable, weight in rows.values_list("pk", "split", "desirable", "weight"):
            values = cap.examples[pk]
            counts[_count(split, desirable)] -= 1
            if split == Split.TRAIN:
                weights[desirable] -= weight
            if values is not None:
                counts[_count(split, values.desirable)] += 1
                if split == Split.TRAIN:
                    weights[values.desirable] += values.weight
    return SnapshotTotals(counts, weights[True], weights[False], cap.left_out, cap.people)


def snapshot_totals_cached(project: Project) -> SnapshotTotals:
    """Return the totals for the Train page, up to a minute old if a person is over the cap.

    With hundreds of thousands of votes it takes seconds to find out which are taken.
    """
    key = f"taken:{project.pk}:{project.person_share}:{project.person_floor}"
    known: SnapshotTotals | None = cache.get(key)
    if known is not None:
        return known
    totals = snapshot_totals(project, people_cap(project))
    if totals.people:
        cache.set(key, totals, TOTALS_SECONDS)
    return totals


def _count(split: str, desirable: bool) -> str:
    return f"{split}_{'up' if desirable else 'down'}"


def people_cap(project: Project) -> PersonCap:
    """Return which examples of the project change because one person gave too many votes.

    Reads one sum over the votes; the votes of a person only if they are over the cap.
    """
    votes = Vote.objects.standing().filter(project=project)
    if project.person_share == 100 or not over_cap(votes_by_person(votes), project=project):
        return PersonCap()
    # a decided example is based on no vote
    in_examples = votes.filter(completion__example__isnull=False, completion__decided="")
    caps = over_cap(votes_by_person(in_examples), project=project)
    dropped: dict[int, set[int]] = defaultdict(set)
    for person, cap in caps.items():
        theirs = in_examples.filter(user=person).exclude(source=Source.IMPORT)
        ids = theirs.values_list("completion_id", flat=True).iterator(chunk_size=2_000)
        # by hash: a sample of all their votes, and a larger cap only adds to it
        for completion in sorted(ids, key=lambda pk: sample_key(person, pk))[cap:]:
            dropped[completion].add(person)
    return PersonCap(len(caps), remaining(dropped))


def votes_by_person(votes: VoteQuerySet) -> dict[int | None, int]:
    """Return the number of votes of each person; those of imports under None."""
    counted = votes.order_by().values_list("user", "source").annotate(n=Count("pk"))
    found: dict[int | None, int] = defaultdict(int)
    for user, source, n in counted:
        found[None if source == Source.IMPORT else user] += n
    return found


def over_cap(votes: Mapping[int | None, int], *, project: Project) -> dict[int, int]:
    """Return the people over the cap, each with the number of votes that are taken."""
    people = {user: n for user, n in votes.items() if user is not None}
    if len(people) < 2:
        return {}
    cap = max(
        project.person_floor,
        cap_of(list(people.values()), others=votes.get(None, 0), percent=project.person_share),
    )
    return {user: cap for user, n in people.items() if n > cap}


def cap_of(counts: list[int], *, others: int, percent: int) -> int:
    """Return the most votes of one person that are at most `percent` of all that are then taken.

    With Σ min(nᵢ, c) concave in c, the caps c that satisfy c ≤ p · (others + Σ min(nᵢ, c)) are a
    range from 0 on; bisection finds its end.
    """
    low, high = 0, max(counts)
    while low < high:
        cap = (low + high + 1) // 2
        if 100 * cap <= percent * (others + sum(min(n, cap) for n in counts)):
            low = cap
        else:
            high = cap - 1
    return low


def sample_key(person: int, completion: int) -> bytes:
    """Return the sort key by which a person's votes are taken."""
    return hashlib.sha256(f"{person}:{completion}".encode()).digest()


def remaining(dropped: Mapping[int, set[int]]) -> dict[int, ExampleValues | None]:
    """Return each completion's example without the votes of the people named."""
    found: dict[int, ExampleValues | None] = {}
    for chunk in chunks(sorted(dropped)):
        verdicts: dict[int, list[str]] = {pk: [] for pk in chunk}
        rows = Vote.objects.standing().filter(completion__in=chunk)
        for pk, user, verdict in rows.values_list("completion_id", "user_id", "verdict"):
            if user not in dropped[pk]:
                verdicts[pk].append(verdict)
        # the text is not empty: there is an example
        found |= {pk: values_of_votes(given, text="…") for pk, given in verdicts.items()}
    return found


def chunks(ids: list[int]) -> Iterator[list[int]]:
    return (ids[start : start + CHUNK] for start in range(0, len(ids), CHUNK))
