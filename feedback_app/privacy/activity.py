"""A person's activity, and the versions that it helped to train."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

from django.db.models import Count, Exists, Max, OuterRef, Q, Subquery
from django.db.models.functions import TruncDate
from django.utils import timezone

from feedback_app.accounts.models import Membership, User
from feedback_app.feedback.models import Example, Project, Source, Split, Verdict, Vote
from feedback_app.serving.models import Release
from feedback_app.training.models import Adapter, SnapshotItem

DAYS = 28
EFFECTS_SHOWN = 5


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
    ups: int
    downs: int
    imported: int
    last: dt.datetime | None
    # not by split: the figures before and after a vote would show the split of its prompt
    examples: int
    effects: list[Effect]

    @property
    def votes(self) -> int:
        return self.ups + self.downs


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
    own = Vote.objects.filter(project=project, user=user)
    judged = ~Q(source=Source.IMPORT)
    counts = own.aggregate(
        ups=Count("pk", filter=judged & Q(verdict=Verdict.UP)),
        downs=Count("pk", filter=judged & Q(verdict=Verdict.DOWN)),
        imported=Count("pk", filter=~judged),
        last=Max("updated_at", filter=judged),
    )
    examples = Example.objects.filter(Exists(own.filter(judged, completion=OuterRef("pk"))))
    return Work(
        project=project,
        membership=Membership.objects.filter(project=project, user=user).first(),
        examples=examples.filter(project=project).count(),
        effects=effects_in(project, user),
        **counts,
    )


def effects_in(project: Project, user: User) -> list[Effect]:
    """Return the newest versions trained on answers that the person had judged by then."""
    used = (
        SnapshotItem.objects.filter(
            snapshot=OuterRef("run__snapshot"),
            split=Split.TRAIN,
            completion__votes__user=user,
            completion__votes__source__in=set(Source) - {Source.IMPORT},
            completion__votes__created_at__lte=OuterRef("run__snapshot__created_at"),
        )
        .order_by()
        .values("snapshot")
        .annotate(n=Count("pk"))
        .values("n")
    )
    releases = Release.objects.filter(adapter=OuterRef("pk"))
    adapters = (
        project.adapters.defer("report", "gate")
        .annotate(
            used=Subquery(used),
            live_since=Subquery(releases.filter(live=True).values("since")[:1]),
            was_live=Exists(releases),
        )
        .filter(used__gt=0)
        .newest_first()[:EFFECTS_SHOWN]
    )
    return [effect_of(adapter) for adapter in adapters]


def effect_of(adapter: Adapter) -> Effect:
    return Effect(
        name=adapter.name,
        votes=adapter.used,  # type: ignore[attr-defined]
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
