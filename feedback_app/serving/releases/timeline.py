"""The timeline of releases, with the votes of each version."""

from collections.abc import Mapping
from dataclasses import dataclass

from django.db.models import Count, Q

from feedback_app.feedback.models import BASE_VERSION, Project, Verdict
from feedback_app.serving.models import Release
from feedback_app.serving.stats.wilson import wilson_interval
from feedback_app.training.models import Adapter

RELEASES_SHOWN = 50


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
class Entry:
    """One release of the timeline."""

    release: Release
    rate: UpRate | None


@dataclass(frozen=True)
class Candidate:
    """A version that could be released."""

    adapter: Adapter
    rate: UpRate | None
    was_live: bool


def up_rates(project: Project) -> dict[str, UpRate]:
    """Return the share of ups by version; versions without votes are left out.

    The versions answered different prompts. Votes that were set aside do not count, nor do votes
    on gold items: all annotators see those, so one answer would count once per person.
    """
    rows = (
        project.votes.standing()
        .filter(completion__gold=False)
        .values("completion__version")
        .order_by()
        .annotate(votes=Count("pk"), ups=Count("pk", filter=Q(verdict=Verdict.UP)))
    )
    return {row["completion__version"]: up_rate(row["ups"], row["votes"]) for row in rows}


def up_rate(ups: int, votes: int) -> UpRate:
    return UpRate(ups, votes, *wilson_interval(ups, votes))


def timeline(project: Project, rates: Mapping[str, UpRate]) -> list[Entry]:
    """Return the releases, newest first."""
    releases = project.releases.select_related("adapter", "released_by").order_by("-since", "-pk")
    return [Entry(r, rates.get(r.version)) for r in releases[:RELEASES_SHOWN]]


def fallback_of(entries: list[Entry]) -> Release | None:
    """Return the live release if it is the fallback for a broken version, else None."""
    live = [entry.release for entry in entries if entry.release.live]
    return live[0] if live and live[0].fallback else None


def candidates(project: Project, rates: Mapping[str, UpRate]) -> list[Candidate]:
    """Return the versions that are not live, newest first, whether they passed the gate or not."""
    adapters = (
        project.adapters.usable()
        .exclude(name=project.live_version)
        .select_related("run")
        .defer("report")
        .newest_first()[:RELEASES_SHOWN]
    )
    released = set(project.releases.values_list("adapter", flat=True))
    return [Candidate(a, rates.get(a.name), a.pk in released) for a in adapters]


def base_is_live(project: Project) -> bool:
    return project.live_version == BASE_VERSION
