"""A person's activity, and the versions that it helped to train."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

from django.db.models import Count, Exists, F, OuterRef, Subquery
from django.db.models.functions import TruncDate
from django.utils import timezone

from feedback_app.accounts.models import Membership, User
from feedback_app.feedback.members.figures import VoteCounts, member_counts
from feedback_app.feedback.models import Project, Source, Split, Vote
from feedback_app.serving.models import Release
from feedback_app.training.models import Adapter, SnapshotItem

DAYS = 28
EFFECTS_SHOWN = 5
VOTES_READ = 200


@dataclass(frozen=True)
class Effect:
    """A version that the person's votes helped to train."""

    name: str
    votes: int
    live_since: dt.datetime | None
    was_live: bool


@dataclass(frozen=True)
class Work:
    """A person's activity in one project. `membership` is None if they are not a member."""

    project: Project
    membership: Membership | None
    # not by split: the figures before and after a vote would show the split of its prompt
    # None: a worker has not counted them yet
    counts: VoteCounts | None
    effects: list[Effect]

    @property
    def votes(self) -> int:
        return self.counts.ups + self.counts.downs if self.counts else 0


@dataclass(frozen=True)
class Day:
    """The votes of one day, and its bar in a chart of height 100."""

    date: dt.date
    votes: int
    x: int
    height: float

    @property
    def y(self) -> float:
        return 100 - self.height


def work_in(project: Project, user: User) -> Work:
    """Return a person's activity in a project; labels of imported files are counted separately."""
    return Work(
        project=project,
        membership=Membership.objects.filter(project=project, user=user).first(),
        counts=member_counts(project=project, user=user),
        effects=effects_in(project, user),
    )


def effects_in(project: Project, user: User) -> list[Effect]:
    """Return which of the newest versions were trained on answers that the person had judged by
    then; of the person the newest VOTES_READ votes are looked at."""
    votes = project.votes.filter(user=user).order_by("-updated_at")
    recent = votes.values_list("completion", "source")[:VOTES_READ]
    judged = [completion for completion, source in recent if source != Source.IMPORT]
    releases = Release.objects.filter(adapter=OuterRef("pk"))
    adapters = list(
        project.adapters.defer("report", "gate")
        .select_related("run")
        .annotate(
            live_since=Subquery(releases.filter(live=True).values("since")[:1]),
            was_live=Exists(releases),
        )
        .newest_first()[:EFFECTS_SHOWN]
    )
    items = SnapshotItem.objects.filter(
        snapshot__in=[adapter.run.snapshot_id for adapter in adapters],
        completion__in=judged,
        split=Split.TRAIN,
        completion__votes__user=user,
        completion__votes__created_at__lte=F("snapshot__created_at"),
    )
    used = dict(items.order_by().values_list("snapshot").annotate(n=Count("pk")))
    return [
        effect_of(adapter, votes=used[adapter.run.snapshot_id])
        for adapter in adapters
        if adapter.run.snapshot_id in used
    ]


def effect_of(adapter: Adapter, *, votes: int) -> Effect:
    return Effect(
        name=adapter.name,
        votes=votes,
        live_since=adapter.live_since,  # type: ignore[attr-defined]
        was_live=adapter.was_live,  # type: ignore[attr-defined]
    )


def days_of(user: User, projects: Sequence[Project]) -> list[Day]:
    """Return the last four weeks, oldest first; days in UTC."""
    today = timezone.now().date()
    first = today - dt.timedelta(days=DAYS - 1)
    begin = dt.datetime.combine(first, dt.time(), dt.UTC)
    # a vote cast since then was also updated since then, and updated_at has an index
    recent = Vote.objects.filter(
        project__in=projects, user=user, updated_at__gte=begin, created_at__gte=begin
    ).exclude(source=Source.IMPORT)
    rows = recent.annotate(day=TruncDate("created_at")).values("day").order_by()
    counts = {row["day"]: row["n"] for row in rows.annotate(n=Count("pk"))}
    most = max(counts.values(), default=1)
    return [
        Day(day, counts.get(day, 0), x=10 * number, height=100 * counts.get(day, 0) / most)
        for number in range(DAYS)
        for day in [first + dt.timedelta(days=number)]
    ]
