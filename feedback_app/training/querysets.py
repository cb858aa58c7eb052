"""Named queries of the training app."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from django.db.models import QuerySet

if TYPE_CHECKING:
    from feedback_app.training.models import Adapter, Run  # noqa: F401 - the type parameters


class RunQuerySet(QuerySet["Run"]):
    def active(self) -> Self:
        return self.filter(status__in=["queued", "running", "evaluating"])

    def newest_first(self) -> Self:
        return self.order_by("-number")


class AdapterQuerySet(QuerySet["Adapter"]):
    def usable(self) -> Self:
        return self.filter(discarded_at=None)

    def newest_first(self) -> Self:
        return self.order_by("-pk")
