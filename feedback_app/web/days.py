"""Days in the parameters of a URL, in UTC."""

import datetime as dt

from django.http import HttpRequest
from django.utils import timezone

from feedback_app.web.errors import UserError


def day_of(request: HttpRequest, name: str) -> str:
    """Return a parameter as YYYY-MM-DD, or an empty string. Raises UserError if it is no day."""
    value = request.GET.get(name, "")
    try:
        day = dt.date.fromisoformat(value) if value else None
    except ValueError:
        day = dt.date.max
    if day == dt.date.max:  # has no day after it
        raise UserError(f"{name} must be a day, such as 2026-11-30.")
    return day.isoformat() if day else ""


def midnight(day: str) -> dt.datetime:
    """Return the moment at which the day begins."""
    return timezone.make_aware(dt.datetime.combine(dt.date.fromisoformat(day), dt.time()), dt.UTC)
