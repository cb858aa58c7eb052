"""Pages of a list whose cost does not grow with its table."""

from functools import cached_property
from typing import Any

from django.core.paginator import Paginator
from django.db.models import QuerySet

from feedback_app.db import bounded_count


class CountedPaginator(Paginator[Any]):
    """Pages over the first `bounded_count.COUNTED` rows of a queryset.

    `of` is counted instead of the rows: the same ones, without what is read along for a page.
    """

    def __init__(self, rows: QuerySet[Any], size: int, *, of: QuerySet[Any] | None = None) -> None:
        super().__init__(rows, size)
        self._of = rows if of is None else of

    @cached_property
    def found(self) -> int:
        return bounded_count.counted(self._of, most=self.most)

    @property
    def most(self) -> int:
        return bounded_count.COUNTED

    @cached_property
    def count(self) -> int:
        return min(self.found, self.most)

    @property
    def more(self) -> bool:
        """Whether there are rows beyond the last page."""
        return self.found > self.count


class ListedPaginator(CountedPaginator):
    """Pages over the first `bounded_count.LISTED` rows, for lists that people work through."""

    @property
    def most(self) -> int:
        return bounded_count.LISTED
