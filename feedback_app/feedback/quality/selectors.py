"""Vote quality of a project: agreement, and each person's speed and accuracy.

Computed from the newest votes only, so that the page's cost does not grow with the table. Imported
votes are left out. Votes that are set aside count for the person, not for agreement.
"""

import datetime as dt
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import combinations, pairwise
from typing import NamedTuple

from django.core.cache import cache

from feedback_app.accounts.models import User
from feedback_app.feedback.examples.overturned import overturned_by_person
from feedback_app.feedback.models import GoldAnswer, Project, Skip, Source, Verdict, Vote
from feedback_app.feedback.quality.agreement import Alpha, agreed_share, alpha_of

#: The newest votes of a project that are read.
WINDOW = 20_000
#: Pairs of people with the most answers in common.
PAIRS = 300
#: A longer time between two verdicts is a break, not work.
BREAK_SECONDS = 300
#: So many undone labels, and so large a share of a person's votes, are marked.
OVERTURNED_MANY, OVERTURNED_SHARE = 10, 0.2
#: How long the figures are cached.
CACHE_SECONDS = 30
AGREED_SECONDS = 60


class Cast(NamedTuple):
    """The columns of a vote that are used here."""

    completion: int
    user: int
    verdict: str
    hasty: bool
    at: dt.datetime
    source: str
    set_aside: int | None


@dataclass
class Person:
    """One person's figures; shares are None where there is nothing to count."""

    user: int
    name: str = ""
    votes: int = 0
    at_desk: int = 0
    hasty: int = 0
    set_aside: int = 0
    skips: int = 0
    # labels of other people that their votes turned into another or a tie
    overturned: int = 0
    flags: int = 0
    flags_restored: int = 0
    # verdicts on completions that others judged too, where the others are not tied
    compared: int = 0
    agreed: int = 0
    gold: int = 0
    gold_right: int = 0
    per_hour: float | None = None

    @property
    def agreement(self) -> float | None:
        return share(self.agreed, self.compared)

    @property
    def overturned_many(self) -> bool:
        """Whether their votes undid so many labels of others that an admin should look."""
        return (
            self.overturned >= OVERTURNED_MANY and self.overturned >= OVERTURNED_SHARE * self.votes
        )

    @property
    def skip_rate(self) -> float | None:
        return share(self.skips, self.skips + self.at_desk)

    @property
    def hasty_share(self) -> float | None:
        return share(self.hasty, self.at_desk)

    @property
    def gold_share(self) -> float | None:
        return share(self.gold_right, self.gold)


@dataclass(frozen=True)
class Pair:
    """Two people who judged the same answers."""

    first: str
    second: str
    alpha: Alpha


@dataclass(frozen=True)
class Quality:
    """The figures of a project; `votes` is the number of votes that were read."""

    alpha: Alpha
    votes: int
    people: list[Person] = field(default_factory=list)
    pairs: list[Pair] = field(default_factory=list)

    @property
    def cut(self) -> bool:
        """Whether there may be older votes that were not read."""
        return self.votes == WINDOW


def share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def quality(project: Project) -> Quality:
    """Return the project's figures, cached for CACHE_SECONDS."""
    key = f"quality:{project.pk}"
    found: Quality | None = cache.get(key)
    if found is None:
        found = quality_measure(project)
        cache.set(key, found, CACHE_SECONDS)
    return found


def quality_measure(project: Project) -> Quality:
    """Compute the project's figures in five queries."""
    rows = Vote.objects.filter(project=project).exclude(source=Source.IMPORT).order_by("-pk")
    columns = ("completion", "user", "verdict", "hasty", "created_at", "source", "set_aside")
    casts = [Cast._make(row) for row in rows.values_list(*columns)[:WINDOW]]
    people: dict[int, Person] = {}
    for cast in casts:
        person = people.setdefault(cast.user, Person(cast.user))
        person.votes += 1
        person.at_desk += cast.source == Source.ANNOTATE
        person.hasty += cast.hasty
        person.set_aside += cast.set_aside is not None
    by_answer: dict[int, dict[int, str]] = defaultdict(dict)
    for cast in casts:
        if cast.set_aside is None:
            by_answer[cast.completion][cast.user] = cast.verdict
    agree(people, by_answer.values())
    for user, completions in overturned_by_person(project, among=by_answer).items():
        if user in people:
            people[user].overturned = len(completions)
    for user, per_hour in paces(casts).items():
        people[user].per_hour = per_hour
    outside_votes(people, project=project, since=min((c.at for c in casts), default=None))
    names = {user.pk: str(user) for user in User.objects.filter(pk__in=people)}
    for person in people.values():
        person.name = names[person.user]
    return Quality(
        alpha=alpha_of(ups_and_downs(given.values()) for given in by_answer.values()),
        votes=len(casts),
        people=list(people.values()),
        pairs=pairs_of(by_answer.values(), names),
    )


def agreed(project: Project) -> float | None:
    """Return the share of equal verdicts on the same answer, of the project's newest votes; cached
    for AGREED_SECONDS. None if no answer has two verdicts."""
    key = f"agreed:{project.pk}"
    found: tuple[float | None] | None = cache.get(key)
    if found is None:
        rows = Vote.objects.standing().filter(project=project).exclude(source=Source.IMPORT)
        given: dict[int, list[str]] = defaultdict(list)
        for pk, verdict in rows.order_by("-pk").values_list("completion", "verdict")[:WINDOW]:
            given[pk].append(verdict)
        found = (agreed_share(map(ups_and_downs, given.values())),)
        cache.set(key, found, AGREED_SECONDS)
    return found[0]


def ups_and_downs(verdicts: Iterable[str]) -> tuple[int, int]:
    given = list(verdicts)
    ups = given.count(Verdict.UP)
    return ups, len(given) - ups


def agree(people: dict[int, Person], answers: Iterable[dict[int, str]]) -> None:
    """Compare each verdict with the majority of the other verdicts on the same completion."""
    for given in answers:
        ups, downs = ups_and_downs(given.values())
        for user, verdict in given.items():
            others_up = ups - (verdict == Verdict.UP)
            others_down = downs - (verdict == Verdict.DOWN)
            if others_up != others_down:
                people[user].compared += 1
                people[user].agreed += (others_up > others_down) == (verdict == Verdict.UP)


def paces(casts: Iterable[Cast]) -> dict[int, float]:
    """Return verdicts per hour at the annotation page by user id, breaks excluded."""
    times: dict[int, list[dt.datetime]] = defaultdict(list)
    for cast in casts:
        if cast.source == Source.ANNOTATE:
            times[cast.user].append(cast.at)
    found = {}
    for user, moments in times.items():
        moments.sort()
        gaps = [(b - a).total_seconds() for a, b in pairwise(moments)]
        worked = [gap for gap in gaps if gap <= BREAK_SECONDS]
        if sum(worked) > 0:
            found[user] = 3600 * len(worked) / sum(worked)
    return found


def outside_votes(
    people: dict[int, Person], *, project: Project, since: dt.datetime | None
) -> None:
    """Add the skips since the oldest vote, flags, also of people without votes, and gold answers;
    of each the newest WINDOW."""
    given = Skip.objects.filter(completion__project=project).order_by("-pk")
    skips = given.values_list("user", "created_at", "flag", "completion__flagged")
    for user, at, flag, still in skips[:WINDOW]:
        if user in people or flag:
            person = people.setdefault(user, Person(user))
            person.skips += since is None or at >= since
            person.flags += flag
            person.flags_restored += flag and not still
    answers = GoldAnswer.objects.filter(project=project).order_by("-pk")
    for user, right in answers.values_list("user", "right")[:WINDOW]:
        if user in people:
            people[user].gold += 1
            people[user].gold_right += right


def pairs_of(answers: Iterable[dict[int, str]], names: dict[int, str]) -> list[Pair]:
    """Return α of the pairs of people who share the most completions."""
    shared: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    for given in answers:
        people = [(user, verdict == Verdict.UP) for user, verdict in sorted(given.items())]
        for (first, one), (second, other) in combinations(people, 2):
            shared[first, second].append((one + other, 2 - one - other))
    most = sorted(shared.items(), key=lambda item: (-len(item[1]), item[0]))[:PAIRS]
    return [Pair(names[first], names[second], alpha_of(counts)) for (first, second), counts in most]
