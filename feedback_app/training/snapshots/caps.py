"""How many votes of one person a snapshot takes, and which.

The cap is a share of the votes that a snapshot is based on, ties included. A second cap, of the
same share, limits how many labels of other people one person's votes may overturn. All visitors of
a share link count as one person. Imported labels count for no person: an admin saw the file and
chose it. There is no cap for a person who is the only one to vote.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from django.core.cache import cache
from django.db.models import Count, Sum

from feedback_app.feedback.examples.overturned import overturned_by_person
from feedback_app.feedback.examples.rule import ExampleValues, values_of_votes
from feedback_app.feedback.models import (
    Completion,
    Example,
    Project,
    Source,
    Split,
    Vote,
    VoteQuerySet,
)
from feedback_app.training.snapshots.reliability import class_ratios

CHUNK = 500
TOTALS_SECONDS = 60


@dataclass(frozen=True)
class RestoredExample:
    """The example that a tie becomes without the votes over the cap."""

    split: str
    values: ExampleValues


@dataclass(frozen=True)
class PersonCap:
    """The effect of the cap. `examples` maps completion ids to the example without the votes over
    the cap, or to None if the example is left out; `restored` maps those of ties."""

    people: int = 0
    examples: Mapping[int, ExampleValues | None] = field(default_factory=dict)
    restored: Mapping[int, RestoredExample] = field(default_factory=dict)

    @property
    def left_out(self) -> int:
        return sum(values is None for values in self.examples.values())


@dataclass(frozen=True)
class SnapshotTotals:
    """Totals of a snapshot taken now: examples by split and class, summed example weights of each
    class of the training split, what the cap leaves out, and the ties that it makes examples."""

    counts: dict[str, int]
    train_weight_up: float
    train_weight_down: float
    left_out: int
    restored: int
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
    for example in cap.restored.values():
        counts[_count(example.split, example.values.desirable)] += 1
        if example.split == Split.TRAIN:
            weights[example.values.desirable] += example.values.weight
    ratios = class_ratios(project)
    return SnapshotTotals(
        counts=counts,
        train_weight_up=weights[True] * ratios[True],
        train_weight_down=weights[False] * ratios[False],
        left_out=cap.left_out,
        restored=len(cap.restored),
        people=cap.people,
    )


def snapshot_totals_cached(project: Project) -> SnapshotTotals:
    """Return the totals for the Train page, up to a minute old if a person is over the cap.

    With hundreds of thousands of votes it takes seconds to find out which are taken.
    """
    rules = (project.person_share, project.person_floor, int(project.weigh_by_reliability))
    key = "totals:" + ":".join(str(part) for part in (project.pk, *rules))
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
    """Return which examples of the project change because one person gave too many votes, or
    overturned too many labels of others.

    Reads sums over the votes, and all votes on completions with ups and downs; the votes of a
    person only if they are over a cap.
    """
    if project.person_share == 100:
        return PersonCap()
    # a decided example is based on no vote
    votes = Vote.objects.standing().filter(project=project, completion__decided="")
    counts, voters = votes_by_voter(votes)
    people = {voter: count for voter, count in counts.items() if voter is not None}
    if len(people) < 2:
        return PersonCap()
    caps = over_cap(counts, project=project)
    overturned: dict[int, set[int]] = defaultdict(set)
    for user, completions in overturned_by_person(project).items():
        if user in voters:  # not of imports
            overturned[voters[user]] |= completions
    total = sum(counts.values())
    dropped: dict[int, set[int]] = defaultdict(set)
    over = 0
    for voter, count in people.items():
        most = project.person_share * (total - count) // 100
        if voter in caps or len(overturned[voter]) > most:
            over += 1
            cap = caps.get(voter, count)
            for completion, user in votes_over(votes, voter, cap, overturned[voter], most):
                dropped[completion].add(user)
    return capped(dropped, people=over)


def votes_by_voter(votes: VoteQuerySet) -> tuple[dict[int | None, int], dict[int, int]]:
    """Return the number of votes of each voter, those of imports under None; and the voter of each
    user: the user, or for visitors the negative id of their share link."""
    # the relation of a higher layer, by name only
    link = "user__share_visitor__link"
    counted = votes.order_by().values_list("user", link, "source").annotate(n=Count("pk"))
    found: dict[int | None, int] = defaultdict(int)
    voters: dict[int, int] = {}
    for user, link_id, source, n in counted:
        if source == Source.IMPORT:
            found[None] += n
        else:
            voters[user] = -link_id if link_id else user
            found[voters[user]] += n
    return found, voters


def over_cap(votes: Mapping[int | None, int], *, project: Project) -> dict[int, int]:
    """Return the voters over the cap, each with the number of votes that are taken."""
    people = {voter: n for voter, n in votes.items() if voter is not None}
    if len(people) < 2:
        return {}
    # a smaller minimum would let one vote of a second person discard most of what one person gave
    least = min(project.person_floor, project.person_share * sum(votes.values()) // 100)
    cap = max(
        least,
        cap_of(list(people.values()), others=votes.get(None, 0), percent=project.person_share),
    )
    return {voter: cap for voter, n in people.items() if n > cap}


def votes_over(
    votes: VoteQuerySet, voter: int, cap: int, overturned: set[int], most: int
) -> list[tuple[int, int]]:
    """Return a voter's votes over the caps, as pairs of completion and user.

    They are chosen by hash, so that the rest is a sample of all their votes and a larger cap only
    adds to it. Votes that overturn labels of others are taken last, and at most `most` of them.
    """
    of_voter = {"user__share_visitor__link": -voter} if voter < 0 else {"user": voter}
    theirs = votes.filter(**of_voter).exclude(source=Source.IMPORT)
    rows = theirs.values_list("completion", "user").iterator(chunk_size=2_000)
    ordered = sorted(rows, key=lambda row: sample_key(row[1], row[0]))
    own = [row for row in ordered if row[0] not in overturned]
    overturning = [row for row in ordered if row[0] in overturned]
    return (own + overturning[:most])[cap:] + overturning[most:]


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


def capped(dropped: Mapping[int, set[int]], *, people: int) -> PersonCap:
    """Return the cap that leaves out these people's votes, given by completion."""
    found: dict[int, ExampleValues | None] = {}
    restored: dict[int, RestoredExample] = {}
    for chunk in chunks(sorted(dropped)):
        verdicts: dict[int, list[str]] = {pk: [] for pk in chunk}
        rows = Vote.objects.standing().filter(completion__in=chunk)
        for pk, user, verdict in rows.values_list("completion_id", "user_id", "verdict"):
            if user not in dropped[pk]:
                verdicts[pk].append(verdict)
        examples = set(Example.objects.filter(pk__in=chunk).values_list("pk", flat=True))
        answers = Completion.objects.filter(pk__in=chunk).order_by("pk")
        fields = ("pk", "text", "prompt__split", "training_weight")
        for pk, text, split, own in answers.values_list(*fields):
            values = values_of_votes(verdicts[pk], text=text)
            if values is not None and own is not None:
                weight = values.weight * own
                values = replace(values, weight=weight) if weight else None
            if pk in examples:
                found[pk] = values
            elif values is not None:
                restored[pk] = RestoredExample(split, values)
    return PersonCap(people, found, restored)


def chunks(ids: list[int]) -> Iterator[list[int]]:
    return (ids[start : start + CHUNK] for start in range(0, len(ids), CHUNK))
