"""The votes on each version's answers, as figures that a worker counts in a large project."""

import datetime as dt
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from django.db.models import Count, Q, QuerySet

from feedback_app.accounts.models import ApiToken
from feedback_app.feedback.figures.services import figures_read
from feedback_app.feedback.models import Project, Source, Verdict, Vote
from feedback_app.serving.demo.generation import LINK_GROUP
from feedback_app.serving.stats.pooled_rate import Cell, Pooled, Voters, pooled_rate
from feedback_app.serving.stats.wilson import wilson_interval

NAME = "version_rates"
#: Most user groups of a channel with a figure of their own; all others are one group.
GROUPS = 20
#: The channel of answers that visitors of share links got.
SHARE = "share"

#: Channels whose answers no user asked for.
CHOSEN_FOR_PEOPLE = {Source.SAMPLED, Source.IMPORT}

#: (channel, user group)
Key = tuple[str, str]


@dataclass(frozen=True)
class UpRate:
    """Share of ups among the votes on a version's answers, with its 95 % Wilson interval.

    `representative` is the share estimated for all answers, by channel and user group; None where
    it would say nothing else.
    """

    ups: int
    votes: int
    low: float
    high: float
    representative: Pooled | None = None

    @property
    def share(self) -> float:
        return self.ups / self.votes


@dataclass(frozen=True)
class UpRates:
    """The rates by version; versions without votes are left out.

    `known` is False until a worker has counted them, which it did at `counted_at`.
    """

    by_version: dict[str, UpRate]
    known: bool = True
    counted_at: dt.datetime | None = None

    @property
    def representative(self) -> bool:
        """Whether any version has a representative rate."""
        return any(rate.representative for rate in self.by_version.values())


@dataclass
class Counts:
    """A version's answers and votes by channel and user group; `people`: [votes, ups] each."""

    answers: dict[Key, int] = field(default_factory=lambda: defaultdict(int))
    people: dict[Key, list[tuple[int, int]]] = field(default_factory=lambda: defaultdict(list))


def up_rates(project: Project) -> UpRates:
    """Return the share of ups by version.

    The versions answered different prompts. Votes that were set aside do not count, nor do votes
    on gold items: all annotators see those, so one answer would count once per person.
    """
    found = figures_read(
        project=project,
        name=NAME,
        count=up_rates_count,
        rows=project.votes.all(),
        also=(project.completions.all(),),
    )
    counts: dict[str, list[Any]] = found.value or {}
    rates = {
        version: up_rate(ups, votes, Pooled(*pooled) if pooled else None)
        for version, (ups, votes, pooled) in counts.items()
    }
    return UpRates(rates, found.value is not None, found.at)


def up_rates_count(project: Project) -> dict[str, list[Any]]:
    """Return [ups, votes, [share, low, high] or None] by version."""
    found = {}
    for version, counts in counts_by_version(project).items():
        cells = cells_of(counts)
        ups, votes = sum(cell.ups for cell in cells), sum(cell.votes for cell in cells)
        if votes:
            found[version] = [ups, votes, representative_rate(counts, cells)]
    return found


def representative_rate(counts: Counts, cells: list[Cell]) -> list[float] | None:
    """Return [share, low, high]; None if annotators and files judged all there is: the raw rate
    says it."""
    if {channel for channel, _ in (*counts.answers, *counts.people)} <= CHOSEN_FOR_PEOPLE:
        return None
    pooled = pooled_rate(cells)
    return [pooled.share, pooled.low, pooled.high] if pooled else None


def counts_by_version(project: Project) -> dict[str, Counts]:
    """Count the answers, and each person's votes, of every version by channel and user group.

    An annotator does not choose what to vote on, and a token votes for people whom it does not
    name: there, each vote stands for itself.
    """
    tokens = set(ApiToken.objects.filter(project=project).values_list("user", flat=True))
    found: dict[str, Counts] = defaultdict(Counts)
    answers = project.completions.filter(gold=False).order_by()
    rows = answers.values_list("version", "source", "user_group").annotate(n=Count("pk"))
    for version, source, group, n in rows.iterator():
        found[version].answers[channel_of(source, group), group] += n
    for version, source, group, user, how, n, ups in votes_by_person(project).iterator():
        people = found[version].people[channel_of(source, group), group]
        if how in (Source.ANNOTATE, Source.IMPORT) or user in tokens:
            people += [(1, 1)] * ups + [(1, 0)] * (n - ups)
        else:
            people.append((n, ups))
    return found


def channel_of(source: str, group: str) -> str:
    """Return the channel of an answer: its source, or SHARE for a visitor of a share link."""
    return SHARE if source == Source.DEMO and group.startswith(LINK_GROUP) else source


def votes_by_person(project: Project) -> QuerySet[Vote, tuple[Any, ...]]:
    """Return (version, source, user group, user, source of the votes, votes, ups) of each person in
    each cell."""
    answer = ("completion__version", "completion__source", "completion__user_group")
    of = (*answer, "user", "source")
    found: QuerySet[Vote, tuple[Any, ...]] = (
        project.votes.standing()
        .filter(completion__gold=False)
        .order_by()
        .values(*of)
        .annotate(n=Count("pk"), ups=Count("pk", filter=Q(verdict=Verdict.UP)))
        .values_list(*of, "n", "ups")
    )
    return found


def cells_of(counts: Counts) -> list[Cell]:
    """Return the cells; of each channel the GROUPS largest groups, and the others as one."""
    by_channel: dict[str, list[Key]] = defaultdict(list)
    for key in sorted({*counts.answers, *counts.people}):
        by_channel[key[0]].append(key)
    cells = []
    for keys in by_channel.values():
        keys.sort(key=lambda key: -counts.answers.get(key, 0))
        for several in [*([key] for key in keys[:GROUPS]), keys[GROUPS:]]:
            if several:
                cells.append(cell_of(counts, several))
    return cells


def cell_of(counts: Counts, keys: list[Key]) -> Cell:
    """Return the cell of these keys together."""
    groups: dict[int, list[int]] = defaultdict(lambda: [0, 0, 0])
    for key in keys:
        for votes, ups in counts.people.get(key, ()):
            sums = groups[votes]
            sums[0] += 1
            sums[1] += ups
            sums[2] += ups * ups
    voters = tuple(Voters(votes, *sums) for votes, sums in sorted(groups.items()))
    return Cell(sum(counts.answers.get(key, 0) for key in keys), voters)


def up_rate(ups: int, votes: int, representative: Pooled | None = None) -> UpRate:
    return UpRate(ups, votes, *wilson_interval(ups, votes), representative)
