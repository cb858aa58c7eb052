"""Named queries of the training app."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Self

from django.conf import settings
from django.db.models import Q, QuerySet
from django.utils import timezone

if TYPE_CHECKING:
    from feedback_app.training.models import Adapter, Run  # noqa: F401 - the type parameters


class RunQuerySet(QuerySet["Run"]):
    def active(self) -> Self:
        return self.filter(status__in=["queued", "running", "evaluating"])

    def claimable(self) -> Self:
        """Waiting, or left alone by the worker that had them."""
        stale = timezone.now() - dt.timedelta(seconds=settings.RUN_STALE_SECONDS)
        return self.filter(
            Q(status="queued") | Q(status__in=["running", "evaluating"], heartbeat_at__lt=stale)
        )

    def newest_first(self) -> Self:
        return self.order_by("-number")


class AdapterQuerySet(QuerySet["Adapter"]):
    def usable(self) -> Self:
        return self.filter(discarded_at=None)

    def newest_first(self) -> Self:
        return self.order_by("-pk")
