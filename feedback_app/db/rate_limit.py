"""Rate limits in fixed windows of a minute, counted in the row that they limit."""

from typing import Any

from django.db.models import F, Q, QuerySet
from django.utils import timezone


def minute_take(row: QuerySet[Any], *, limit: int) -> int:
    """Count one use of `row` in this minute; return 0, or the seconds to wait if it is used up.

    `row` selects one row with the columns `last_used_at` (the window's start, null before the
    first use) and `used_in_minute`. The database decides, so the limit holds over all processes
    and hosts.
    """
    now = timezone.now()
    minute = now.replace(second=0, microsecond=0)
    # a window that a faster clock has started counts as well
    started = row.filter(last_used_at__gte=minute, used_in_minute__lt=limit)
    not_started = row.filter(Q(last_used_at=None) | Q(last_used_at__lt=minute))
    one_more = {"used_in_minute": F("used_in_minute") + 1}
    allowed = (
        started.update(**one_more)
        or not_started.update(last_used_at=minute, used_in_minute=1)
        # another process may have started the window between the two
        or started.update(**one_more)
    )
    return 0 if allowed else 60 - now.second
