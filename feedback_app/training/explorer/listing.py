"""The explorer's list: filters, orders and their query parameters.

Without a filter the list follows an index. Filters look through the first WINDOW examples of the
chosen order, so that the cost does not depend on the snapshot's size.
"""

import datetime as dt
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from django.db.models import Exists, OuterRef, Q, QuerySet
from django.db.models.functions import Length
from django.http import HttpRequest

from feedback_app.feedback.models import Project, Vote
from feedback_app.training.models import Run, SnapshotItem
from feedback_app.web.errors import UserError
from feedback_app.web.forms import query_choice, query_strict

WINDOW = 2_000
ORDERS = {"worst": "margin", "saturated": "-margin"}
SOURCES = ("", "sampled", "demo", "import", "api")
#: Characters of the answer: from, below.
LENGTHS: dict[str, tuple[int, int | None]] = {
    "short": (0, 200),
    "medium": (200, 1_000),
    "long": (1_000, None),
}
_WEEK = re.compile(r"(\d{4})-W(\d{2})\Z")
PARAMETERS = ("sort", "label", "topic", "source", "length", "person", "week", "page")


@dataclass(frozen=True)
class ExplorerFilter:
    """The list's state, as in the URL. Empty: no restriction."""

    sort: str
    label: str
    topic: str
    source: str
    length: str
    person: str
    week: str

    @classmethod
    def of(
        cls, request: HttpRequest, *, topics: Iterable[str], people: Iterable[int]
    ) -> "ExplorerFilter":
        """Read the state from a request. Raise UserError for unknown parameters and values."""
        query_strict(request, PARAMETERS)
        week = request.GET.get("week", "")
        week_begin(week)
        return cls(
            sort=query_choice(request, "sort", tuple(ORDERS)),
            label=query_choice(request, "label", ("", "up", "down")),
            topic=query_choice(request, "topic", ("", *topics)),
            source=query_choice(request, "source", SOURCES),
            length=query_choice(request, "length", ("", *LENGTHS)),
            person=query_choice(request, "person", ("", *map(str, people))),
            week=week,
        )

    def query(self) -> str:
        """Return the state as a query string, without defaults."""
        state = vars(self) | {"sort": "" if self.sort == "worst" else self.sort}
        return urlencode({name: value for name, value in state.items() if value})

    @property
    def narrowed(self) -> bool:
        return any(value for name, value in vars(self).items() if name != "sort")

    def select(self, run: Run) -> QuerySet[SnapshotItem]:
        """Return the matching examples in order, with what the list shows."""
        order = (ORDERS[self.sort], "pk")
        rows = run.snapshot.items.filter(margin__isnull=False)
        if self.narrowed:
            window = rows.order_by(*order).values_list("pk", flat=True)[:WINDOW]
            rows = run.snapshot.items.filter(self.wanted(), pk__in=list(window))
            if self.length:
                low, high = LENGTHS[self.length]
                rows = rows.alias(length=Length("completion__text")).filter(length__gte=low)
                rows = rows if high is None else rows.filter(length__lt=high)
            if self.person:
                votes = Vote.objects.filter(
                    completion=OuterRef("completion"), user=int(self.person)
                )
                rows = rows.filter(Exists(votes))
        return (
            rows.select_related("completion__prompt", "completion__adjudication")
            .defer("completion__token_ids", "completion__prompt_token_ids")
            .order_by(*order)
        )

    def wanted(self) -> Q:
        found = Q()
        if self.label:
            found &= Q(desirable=self.label == "up")
        if self.topic:
            found &= Q(completion__topic=self.topic)
        if self.source:
            found &= Q(completion__source=self.source)
        if begin := week_begin(self.week):
            end = begin + dt.timedelta(days=7)
            found &= Q(completion__created_at__gte=begin, completion__created_at__lt=end)
        return found


def week_begin(week: str) -> dt.datetime | None:
    """Return the Monday (UTC) of a week such as 2026-W48, None for an empty one. Raise UserError
    for anything else."""
    if not week:
        return None
    parts = _WEEK.match(week)
    try:
        if parts is None:
            raise ValueError(week)
        monday = dt.date.fromisocalendar(int(parts[1]), int(parts[2]), 1)
        monday + dt.timedelta(days=7)  # the calendar's last week has no Monday after it
    except (ValueError, OverflowError) as error:
        raise UserError("week must look like 2026-W48.") from error
    return dt.datetime.combine(monday, dt.time(), dt.UTC)


def rewards_under_live(run: Run, items: Iterable[SnapshotItem]) -> dict[int, float]:
    """Return the live version's rewards by completion, of the examples that it was trained on.

    Empty if this run's version is live, or the base is.
    """
    project = run.project
    others = project.adapters.exclude(run=run).select_related("run").defer("report")
    live = others.filter(name=project.live_version).first()
    if live is None:
        return {}
    known = SnapshotItem.objects.filter(
        snapshot=live.run.snapshot_id,
        completion__in=[item.completion_id for item in items],
        reward__isnull=False,
    )
    return dict(known.values_list("completion", "reward"))  # type: ignore[arg-type]  # not null


def people_of(project: Project) -> list[tuple[int, str]]:
    """Return the members as (id, name), by name; a filter names one of them."""
    members = project.memberships.select_related("user").order_by("user__name", "user__email")
    return [(member.user_id, str(member.user)) for member in members[:500]]


def has_fit(run: Run) -> bool:
    return bool(run.snapshot.items.filter(margin__isnull=False)[:1])


def placed(item: Any) -> tuple[float, bool]:
    """Return r − z₀ in nats and the label, as the value curve takes them."""
    return (item.margin if item.desirable else -item.margin), item.desirable
