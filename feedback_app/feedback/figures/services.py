"""Figures over a whole project: counted by the page while that is cheap, else by a worker.

A page of a large project shows what a worker has counted, up to a minute ago; a page that finds
nothing stored, or something older, asks for it. Only the worker reads the whole table.
"""

import datetime as dt
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from django.db.models import QuerySet
from django.utils import timezone

from feedback_app.db import bounded_count
from feedback_app.db.claims import Claim
from feedback_app.feedback.models import Figures, Project

log = structlog.get_logger(__name__)

#: Older figures are counted again when a page shows them.
FRESH = dt.timedelta(seconds=60)
#: Counts a project's figures; the result can be stored as JSON.
Count = Callable[[Project], Any]
Rows = Sequence[QuerySet[Any]]


@dataclass(frozen=True)
class Counted:
    """Figures as a page shows them. `value` is None until they are counted for the first time;
    `at` is None for what was counted for this page."""

    value: Any
    at: dt.datetime | None = None


def figures_read(
    *, project: Project, name: str, count: Count, rows: QuerySet[Any], also: Rows = ()
) -> Counted:
    """Return the figures: counted here if `rows` (and each of `also`), which `count` reads, are
    few; else stored."""
    stored = figures_stored(project=project, name=name, rows=rows, also=also)
    return Counted(count(project)) if stored is None else stored


def figures_stored(
    *, project: Project, name: str, rows: QuerySet[Any], also: Rows = ()
) -> Counted | None:
    """Return what a worker has counted; ask for it if it is missing or old.

    None for a project with so few of these rows, up to `bounded_count.COUNTED`, that a page may
    count them itself.
    """
    known = Figures.objects.filter(project=project, name=name).first()
    if known is None:
        if all(figures_small(each) for each in (rows, *also)):
            return None
        Figures.objects.get_or_create(project=project, name=name)
        return Counted(None)
    old = known.counted_at is not None and known.counted_at < timezone.now() - FRESH
    if known.status == Figures.Status.DONE and old:
        Figures.objects.filter(pk=known.pk, status=Figures.Status.DONE).update(
            status=Figures.Status.QUEUED
        )
    return Counted(known.value, known.counted_at)


def figures_small(rows: QuerySet[Any]) -> bool:
    return bounded_count.counted(rows) <= bounded_count.COUNTED


def figures_due(name: str) -> QuerySet[Figures]:
    """Return the figures of this name that wait for a worker, or whose worker is gone."""
    return Figures.objects.filter(Figures.claimable(), name=name)


def figures_count(*, pk: int, count: Count) -> bool:
    """Count and store figures; return False if another worker does."""
    claim = Claim.take(Figures.objects.select_related("project").filter(pk=pk))
    if claim is None:
        return False
    with claim.kept_alive():
        value = count(claim.row.project)
    stored = claim.update(status=Figures.Status.DONE, value=value, counted_at=timezone.now())
    log.info("figures_counted", name=claim.row.name, project=claim.row.project.slug)
    return stored
