"""How much of a snapshot one person may give, and which of their votes are taken.

A share is of the votes that a snapshot rests on. What was imported is nobody's share: an admin
saw the file and chose it. Somebody who votes alone has no share either: there is nobody whose
votes they could outweigh.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from django.core.cache import cache
from django.db.models import Count

from feedback_app.feedback.examples.rule import ExampleValues, values_of_votes
from feedback_app.feedback.models import Example, Project, Source, Vote, VoteQuerySet

CHUNK = 500
TAKEN_SECONDS = 60


@dataclass(frozen=True)
class Capped:
    """What the cap changes. `examples` maps completion ids to what their other votes amount to;
    None: nothing, the example is left out."""

    people: int = 0
    examples: Mapping[int, ExampleValues | None] = field(default_factory=dict)

    @property
    def left_out(self) -> int:
        return sum(amounts is None for amounts in self.examples.values())

    def counts(self, counts: dict[str, int]) -> dict[str, int]:
        """The examples' counts without what is left out and with what turned."""
        if not self.examples:
            return counts
        found = dict(counts)
        for chunk in chunks(sorted(self.examples)):
            rows = Example.objects.filter(pk__in=chunk)
            for pk, split, desirable in rows.values_list("pk", "split", "desirable"):
                found[_count(split, desirable)] -= 1
                amounts = self.examples[pk]
                if amounts is not None:
                    found[_count(split, amounts.desirable)] += 1
        return found


@dataclass(frozen=True)
class Taken:
    """What a snapshot of now would hold: examples of each class on each side, and what the cap
    leaves out."""

    counts: dict[str, int]
    left_out: int
    people: int


def examples_taken(project: Project, *, exact: bool) -> Taken:
    """For the Train page, where somebody is over the cap, as it was within the last minute: among
    hundreds of thousands of votes it takes seconds to tell which are taken."""
    key = f"taken:{project.pk}:{project.person_share}:{project.person_floor}"
    known: Taken | None = None if exact else cache.get(key)
    if known is not None:
        return known
    cap = people_cap(project)
    taken = Taken(cap.counts(project.examples.counts()), cap.left_out, cap.people)
    if taken.people:
        cache.set(key, taken, TAKEN_SECONDS)
    return taken


def _count(split: str, desirable: bool) -> str:
    return f"{split}_{'up' if desirable else 'down'}"


def people_cap(project: Project) -> Capped:
    """Which examples of the project one person gives too many of.

    Reads one sum over the votes; only where somebody is over the cap, their votes as well.
    """
    votes = Vote.objects.standing().filter(project=project)
    if project.person_share == 100 or not over_cap(votes_by_person(votes), project=project):
        return Capped()
    # what somebody decided rests on no vote
    in_examples = votes.filter(completion__example__isnull=False, completion__decided="")
    caps = over_cap(votes_by_person(in_examples), project=project)
    dropped: dict[int, set[int]] = defaultdict(set)
    for person, cap in caps.items():
        theirs = in_examples.filter(user=person).exclude(source=Source.IMPORT)
        ids = theirs.values_list("completion_id", flat=True).iterator(chunk_size=2_000)
        # by hash: a sample of all they gave, and what is taken stays taken as the cap grows
        for completion in sorted(ids, key=lambda pk: lot(person, pk))[cap:]:
            dropped[completion].add(person)
    return Capped(len(caps), remaining(dropped))


def votes_by_person(votes: VoteQuerySet) -> dict[int | None, int]:
    """How many votes each person gave; under None, what was imported."""
    counted = votes.order_by().values_list("user", "source").annotate(n=Count("pk"))
    found: dict[int | None, int] = defaultdict(int)
    for user, source, n in counted:
        found[None if source == Source.IMPORT else user] += n
    return found


def over_cap(votes: Mapping[int | None, int], *, project: Project) -> dict[int, int]:
    """Who gave more than is taken, with how many of theirs are."""
    people = {user: n for user, n in votes.items() if user is not None}
    if len(people) < 2:
        return {}
    cap = max(
        project.person_floor,
        cap_of(list(people.values()), others=votes.get(None, 0), percent=project.person_share),
    )
    return {user: cap for user, n in people.items() if n > cap}


def cap_of(counts: list[int], *, others: int, percent: int) -> int:
    """The most votes of one person that are at most `percent` of all that are then taken.

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


def lot(person: int, completion: int) -> bytes:
    """Where a vote stands in the order in which a person's votes are taken."""
    return hashlib.sha256(f"{person}:{completion}".encode()).digest()


def remaining(dropped: Mapping[int, set[int]]) -> dict[int, ExampleValues | None]:
    """What each completion's votes amount to without those of the people named."""
    found: dict[int, ExampleValues | None] = {}
    for chunk in chunks(sorted(dropped)):
        verdicts: dict[int, list[str]] = {pk: [] for pk in chunk}
        rows = Vote.objects.standing().filter(completion__in=chunk)
        for pk, user, verdict in rows.values_list("completion_id", "user_id", "verdict"):
            if user not in dropped[pk]:
                verdicts[pk].append(verdict)
        # that the text is not empty is known: there is an example
        found |= {pk: values_of_votes(given, text="…") for pk, given in verdicts.items()}
    return found


def chunks(ids: list[int]) -> Iterator[list[int]]:
    return (ids[start : start + CHUNK] for start in range(0, len(ids), CHUNK))
