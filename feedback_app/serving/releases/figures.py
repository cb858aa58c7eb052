"""The votes on each version's answers, as figures that a worker counts in a large project."""

import datetime as dt
from dataclasses import dataclass

from django.db.models import Count, Q

from feedback_app.feedback.figures.services import figures_read
from feedback_app.feedback.models import Project, Verdict
from feedback_app.serving.stats.wilson import wilson_interval

NAME = "up_rates"


@dataclass(frozen=True)
class UpRate:
    """Share of ups among the votes on a version's answers, with its 95 % Wilson interval."""

    ups: int
    votes: int
    low: float
    high: float

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


def up_rates(project: Project) -> UpRates:
    """Return the share of ups by version.

    The versions answered different prompts. Votes that were set aside do not count, nor do votes
    on gold items: all annotators see those, so one answer would count once per person.
    """
    found = figures_read(project=project, name=NAME, count=up_rates_count, rows=project.votes.all())
    counts: dict[str, list[int]] = found.value or {}
    rates = {version: up_rate(ups, votes) for version, (ups, votes) in counts.items()}
    return UpRates(rates, found.value is not None, found.at)


def up_rates_count(project: Project) -> dict[str, list[int]]:
    """Return [ups, votes] by version."""
    rows = (
        project.votes.standing()
        .filter(completion__gold=False)
        .values("completion__version")
        .order_by()
        .annotate(votes=Count("pk"), ups=Count("pk", filter=Q(verdict=Verdict.UP)))
    )
    return {row["completion__version"]: [row["ups"], row["votes"]] for row in rows}


def up_rate(ups: int, votes: int) -> UpRate:
    return UpRate(ups, votes, *wilson_interval(ups, votes))
