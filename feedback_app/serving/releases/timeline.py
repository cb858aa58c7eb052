"""The timeline of releases, with the votes of each version."""

from collections.abc import Mapping
from dataclasses import dataclass

from feedback_app.feedback.models import (
    BASE_VERSION,
    EDITED_VERSION,
    IMPORTED_VERSION,
    Project,
)
from feedback_app.serving.models import Release
from feedback_app.serving.releases.figures import UpRate
from feedback_app.training.models import Adapter

RELEASES_SHOWN = 25


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
    adapters = list(
        project.adapters.usable()
        .exclude(name=project.live_version)
        .select_related("run")
        .defer("report")
        .newest_first()[:RELEASES_SHOWN]
    )
    released = set(project.releases.filter(adapter__in=adapters).values_list("adapter", flat=True))
    return [Candidate(a, rates.get(a.name), a.pk in released) for a in adapters]


def foreign_rates(rates: Mapping[str, UpRate]) -> list[tuple[str, UpRate]]:
    """Return the rates of other systems, by the names that programs gave them, best first."""
    own = {BASE_VERSION, IMPORTED_VERSION, EDITED_VERSION}
    found = [(name, rate) for name, rate in rates.items() if "@" not in name and name not in own]
    return sorted(found, key=lambda pair: (-pair[1].share, pair[0]))


def base_is_live(project: Project) -> bool:
    return project.live_version == BASE_VERSION
