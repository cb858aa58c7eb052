"""Claims on rows of long work: compare-and-swap, heartbeats, takeover of stale claims.

A message that is delivered twice finds the row claimed. A worker that dies stops the heartbeat,
and after RUN_STALE_SECONDS another worker may claim the row.
"""

import datetime as dt
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Self, TypeVar

from django.conf import settings
from django.db import models
from django.db.models import F, Q, QuerySet
from django.utils import timezone

from feedback_app.db.heartbeats import Heartbeat, kept_alive


class ClaimLost(Exception):
    """Another worker has claimed the row, or its work has ended: write nothing more."""


class Claimable(models.Model):
    """A row of work that one worker does at a time.

    The defaults suit a model with the states `queued` and `running`; others override
    `waiting()`, `working()` and CLAIMED.
    """

    #: Fields that a claim sets, besides `attempt` and `heartbeat_at`.
    CLAIMED: ClassVar[dict[str, Any]] = {"status": "running"}

    # the worker that raised `attempt` owns the row for as long as its heartbeat continues
    attempt = models.PositiveSmallIntegerField(default=0)
    heartbeat_at = models.DateTimeField(null=True)

    class Meta:
        abstract = True

    @classmethod
    def waiting(cls) -> Q:
        """Return the condition for rows that wait for a worker."""
        return Q(status="queued")

    @classmethod
    def working(cls) -> Q:
        """Return the condition for rows that a worker has claimed and not ended."""
        return Q(status="running")

    @classmethod
    def claimable(cls) -> Q:
        """Return the condition for rows that wait, or whose worker has no heartbeat any more."""
        stale = timezone.now() - dt.timedelta(seconds=settings.RUN_STALE_SECONDS)
        return cls.waiting() | (cls.working() & Q(heartbeat_at__lt=stale))


RowT = TypeVar("RowT", bound=Claimable)


@dataclass(frozen=True)
class Claim(Generic[RowT]):
    """One worker's claim on a row. Writes through a lost claim change nothing."""

    row: RowT
    attempt: int

    @classmethod
    def take(
        cls, rows: QuerySet[RowT], *, condition: Q | None = None, **fields: Any
    ) -> Self | None:
        """Claim the row of `rows` and set `fields`; return None if it is not claimable.

        `rows` selects one row. `condition` replaces the model's `claimable()`. Of two workers that
        claim at once one gets None: `attempt` is compared and raised in one UPDATE.
        """
        model = rows.model
        condition = model.claimable() if condition is None else condition
        row = rows.filter(condition).first()
        if row is None:
            return None
        taken = model._default_manager.filter(condition, pk=row.pk, attempt=row.attempt).update(
            attempt=F("attempt") + 1, heartbeat_at=timezone.now(), **model.CLAIMED, **fields
        )
        return cls(rows.get(pk=row.pk), row.attempt + 1) if taken else None

    def held(self) -> QuerySet[RowT]:
        """Return the row as a queryset, empty once the claim is lost or the work has ended."""
        model = type(self.row)
        return model._default_manager.filter(model.working(), pk=self.row.pk, attempt=self.attempt)

    def update(self, **fields: Any) -> bool:
        """Write fields of the row; return False if the claim is lost."""
        return bool(self.held().update(**fields))

    def heartbeat(self, **fields: Any) -> bool:
        """Write a heartbeat, and fields with it; return False if the claim is lost."""
        return self.update(heartbeat_at=timezone.now(), **fields)

    def kept_alive(self) -> AbstractContextManager[Heartbeat]:
        """Write heartbeats from a thread until the block ends."""
        return kept_alive(self.heartbeat)
