"""What a version is made of, and what came of a completion's example and votes.

The numbers of queries do not depend on how much there is: lists are read a page at a time.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from django.db.models import Exists, OuterRef, Prefetch, QuerySet

from feedback_app.accounts.models import User
from feedback_app.feedback.models import Completion, Project, Vote, VoteEvent
from feedback_app.serving.lineage.votes import VoteThen, events_of, votes_then
from feedback_app.serving.models import Release
from feedback_app.training.models import Adapter, Run, Snapshot, SnapshotItem
from feedback_app.training.runs.config import RUN_FIELDS
from feedback_app.training.runs.settings import BY_NAME
from feedback_app.training.runs.starts import Starts, runs_after, runs_before, starts_of
from feedback_app.training.side_by_side.selectors import setting_shown

#: Releases of a version that are shown.
SHOWN = 25
#: Newest votes of a person of which the examples are listed.
VOTES_READ = 2_000


@dataclass(frozen=True)
class VersionLineage:
    """A version with its parts. `settings` are label and value of each setting of the run,
    `manifest` is empty where the files are gone. `before` are the versions that it was started
    from, nearest first, `after` those that were started from it, oldest first."""

    adapter: Adapter
    run: Run
    snapshot: Snapshot
    manifest: Mapping[str, Any]
    settings: list[tuple[str, str]]
    before: list[str]
    after: list[str]
    releases: list[Release]

    @property
    def libraries(self) -> Mapping[str, str]:
        """The versions of the libraries that trained it; empty for a run of before they were
        recorded."""
        return self.run.facts.get("libraries") or {}

    @property
    def hardware(self) -> Mapping[str, Any]:
        return self.run.facts.get("hardware") or {}


@dataclass(frozen=True)
class Ingredient:
    """An example of a snapshot, with the votes that were there when it was taken."""

    item: SnapshotItem
    votes: list[VoteThen]


@dataclass(frozen=True)
class Use:
    """A snapshot with an example of the completion: its run, the version, and the versions that
    were started from that."""

    item: SnapshotItem
    run: Run | None
    adapter: Adapter | None
    votes: list[VoteThen]
    after: list[str]


def version_lineage(adapter: Adapter) -> VersionLineage:
    """Return what a version is made of and where it was used."""
    run, project = adapter.run, adapter.project
    starts = starts_of(project)
    releases = adapter.releases.select_related("released_by").order_by("-pk")[:SHOWN]
    return VersionLineage(
        adapter=adapter,
        run=run,
        snapshot=run.snapshot,
        manifest=manifest_of(adapter),
        settings=[(BY_NAME[name].label, setting_shown(run, name)) for name in RUN_FIELDS],
        before=[project.adapter_name(number) for number in runs_before(run.number, starts)],
        after=versions_after(run, starts),
        releases=list(releases),
    )


def manifest_of(adapter: Adapter) -> dict[str, Any]:
    """Return the manifest beside the version's files, empty if it cannot be read."""
    try:
        manifest = json.loads((adapter.directory / "manifest.json").read_text())
    except (OSError, ValueError):
        return {}
    return manifest if isinstance(manifest, dict) else {}


def versions_after(run: Run, starts: Starts) -> list[str]:
    """Return the versions that were started from a run's version, oldest first."""
    return [run.project.adapter_name(number) for number in sorted(runs_after([run.number], starts))]


def items_of_snapshot(
    snapshot: Snapshot, *, split: str = "", person: int | None = None
) -> QuerySet[SnapshotItem]:
    """Return a snapshot's examples in order; of one split, or those that a person had judged, of
    whose votes the newest VOTES_READ are looked at."""
    items = snapshot.items.select_related("completion__prompt").defer(
        "completion__token_ids", "completion__prompt_token_ids"
    )
    if split:
        items = items.filter(split=split)
    if person is not None:
        votes = Vote.objects.filter(project=snapshot.project_id, user=person)
        then = votes.filter(created_at__lte=snapshot.created_at).order_by("-updated_at")
        judged = list(then.values_list("completion", flat=True)[:VOTES_READ])
        items = items.filter(completion__in=judged)
    return items.order_by("completion_id")


def ingredients(items: Iterable[SnapshotItem], snapshot: Snapshot) -> list[Ingredient]:
    """Return examples of one snapshot with the votes of then."""
    rows = list(items)
    events = events_of(item.completion_id for item in rows)
    return [
        Ingredient(item, votes_then(events[item.completion_id], snapshot.created_at))
        for item in rows
    ]


def people_of_snapshot(snapshot: Snapshot) -> QuerySet[User]:
    """Return the people with a vote on one of the snapshot's examples, in the order of accounts."""
    used = SnapshotItem.objects.filter(snapshot=snapshot, completion=OuterRef("completion"))
    votes = Vote.objects.filter(
        Exists(used),
        project=snapshot.project_id,
        user=OuterRef("pk"),
        created_at__lte=snapshot.created_at,
    )
    return User.objects.filter(Exists(votes)).order_by("pk")


def items_of_completion(completion: Completion) -> QuerySet[SnapshotItem]:
    """Return the completion's examples in all snapshots, newest first."""
    adapters = Prefetch(
        "adapter", Adapter.objects.defer("report", "gate").prefetch_related("releases")
    )
    runs = Prefetch("snapshot__runs", Run.objects.order_by("number").prefetch_related(adapters))
    items = completion.snapshot_items.select_related("snapshot").prefetch_related(runs)
    return items.order_by("-snapshot")


def uses_of(items: Iterable[SnapshotItem], project: Project) -> list[Use]:
    """Return what came of examples of one completion."""
    rows = list(items)
    events = events_of({item.completion_id for item in rows})
    starts = starts_of(project)
    return [_use(item, project, events[item.completion_id], starts) for item in rows]


def _use(item: SnapshotItem, project: Project, events: list[VoteEvent], starts: Starts) -> Use:
    run = next(iter(item.snapshot.runs.all()), None)
    if run is not None:
        run.project = project
    return Use(
        item=item,
        run=run,
        adapter=getattr(run, "adapter", None) if run else None,
        votes=votes_then(events, item.snapshot.created_at),
        after=versions_after(run, starts) if run else [],
    )
