"""Votes, agreement and the up-rates of live versions by day.

A worker counts them if they are many.
"""

import datetime as dt
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from django.db.models import Count, Max, Q
from django.db.models.functions import TruncDate
from django.utils import timezone

from feedback_app.feedback.figures.services import figures_read
from feedback_app.feedback.models import BASE_VERSION, Project, Source, Verdict
from feedback_app.serving.models import Release

NAME = "history"
DAYS = 90
#: Live versions whose up-rates are drawn, the newest of those that were live in these days.
VERSIONS_SHOWN = 5
#: Releases that are marked in the plot.
RELEASES_MARKED = 50

Row = list[Any]


@dataclass(frozen=True)
class History:
    """What the plots of a project show, by day (UTC), oldest first; days without votes are left
    out. `known` is False until a worker has counted.

    votes      (day, ups, downs), without imported labels
    agreement  (day, agreeing pairs of verdicts on the same answer, all pairs), by the day of an
               answer's last verdict
    rates      by version: (day, ups, votes)
    releases   (moment, version) of the releases of these days
    """

    votes: list[Row] = field(default_factory=list)
    agreement: list[Row] = field(default_factory=list)
    rates: dict[str, list[Row]] = field(default_factory=dict)
    releases: list[tuple[dt.datetime, str]] = field(default_factory=list)
    known: bool = True
    counted_at: dt.datetime | None = None

    @property
    def agreed(self) -> float | None:
        """The share of equal verdicts among all pairs of verdicts on the same answer."""
        total = sum(day[2] for day in self.agreement)
        return sum(day[1] for day in self.agreement) / total if total else None


def history(project: Project) -> History:
    """Return the history of the last DAYS days, up to a minute old for a large project."""
    found = figures_read(project=project, name=NAME, count=history_count, rows=project.votes.all())
    if found.value is None:
        return History(known=False)
    releases = _releases(project)
    rates = found.value["rates"]
    return History(
        votes=found.value["votes"],
        agreement=found.value["agreement"],
        rates={name: rates[name] for name in _versions_shown(releases) if name in rates},
        releases=[(moment, name) for moment, name in releases if moment >= _since()],
        counted_at=found.at,
    )


def _since() -> dt.datetime:
    return timezone.now() - dt.timedelta(days=DAYS)


def _releases(project: Project) -> list[tuple[dt.datetime, str]]:
    """Return (moment, version) of the releases that were live in these days, oldest first."""
    rows = (
        Release.objects.filter(Q(until=None) | Q(until__gte=_since()), project=project)
        .select_related("adapter")
        .only("since", "project", "adapter__name")
        .order_by("-since", "-pk")[:RELEASES_MARKED]
    )
    return [(row.since, row.version) for row in reversed(rows)]


def _versions_shown(releases: list[tuple[dt.datetime, str]]) -> list[str]:
    """Return the versions whose up-rates are drawn, in the order of their last release."""
    versions = [version for _, version in releases]
    if all(moment >= _since() for moment, _ in releases):
        versions.insert(0, BASE_VERSION)  # live until the first release
    return list(dict.fromkeys(reversed(versions)))[:VERSIONS_SHOWN][::-1]


def history_count(project: Project) -> dict[str, Any]:
    """Count the votes of the last DAYS days. Votes that are set aside do not count, nor those on
    gold items in the up-rates: all annotators see these. Up-rates are of the versions that are
    drawn: those of 500 versions would take longer to read than the page."""
    shown = set(_versions_shown(_releases(project)))
    votes: dict[str, Row] = {}
    rates: defaultdict[str, dict[str, Row]] = defaultdict(dict)
    for row in (
        project.votes.standing()
        .filter(created_at__gte=_since())
        .annotate(day=TruncDate("created_at", tzinfo=dt.UTC))
        .values("day", "verdict", "source", "completion__version", "completion__gold")
        .order_by()
        .annotate(n=Count("pk"))
    ):
        day, up, n = row["day"].isoformat(), row["verdict"] == Verdict.UP, row["n"]
        if row["source"] != Source.IMPORT:
            entry = votes.setdefault(day, [day, 0, 0])
            entry[1 if up else 2] += n
        if row["completion__version"] in shown and not row["completion__gold"]:
            entry = rates[row["completion__version"]].setdefault(day, [day, 0, 0])
            entry[1] += n * up
            entry[2] += n
    return {
        "votes": sorted(votes.values()),
        "agreement": list(_agreement(project)),
        "rates": {version: sorted(days.values()) for version, days in rates.items()},
    }


def _agreement(project: Project) -> Iterator[Row]:
    """Yield (day, agreeing pairs, pairs) over answers that two people or more judged."""
    judged = (
        project.votes.standing()
        .exclude(source=Source.IMPORT)
        .filter(created_at__gte=_since())
        .values("completion")
        .order_by()
        .annotate(
            ups=Count("pk", filter=Q(verdict=Verdict.UP)), n=Count("pk"), last=Max("created_at")
        )
        .filter(n__gt=1)
        .values_list("ups", "n", "last")
    )
    days: defaultdict[str, Row] = defaultdict(lambda: [0, 0])
    for ups, n, last in judged.iterator():
        day = days[last.date().isoformat()]
        day[0] += pairs(ups) + pairs(n - ups)
        day[1] += pairs(n)
    for name, (agreeing, total) in sorted(days.items()):
        yield [name, agreeing, total]


def pairs(count: int) -> int:
    return count * (count - 1) // 2
