"""Mixing gold items into the queue at random."""

import datetime as dt
import secrets
from collections.abc import Callable

from django.utils import timezone

from feedback_app.accounts.models import User
from feedback_app.feedback.models import CompletionQuerySet, Lease, Project


def gold_insert(
    held: list[int],
    among: Callable[[], CompletionQuerySet],
    *,
    project: Project,
    by: User,
    count: int,
    minutes: int,
) -> int | None:
    """Lease a random gold item of `among` to a person who holds `held`; return its id.

    Return None where chance picks no gold item or none is left. Gold is placed at random because
    people learn to count fixed intervals. The database is queried only if chance picks one, so
    other items cost nothing extra.
    """
    if not project.gold_every or len(held) >= count or secrets.randbelow(project.gold_every):
        return None
    gold = among().gold_for(by).exclude(pk__in=held).order_by("?").values_list("pk", flat=True)
    found = gold.first()
    if found is None:
        return None
    now = timezone.now()
    until = now + dt.timedelta(minutes=minutes)
    Lease.objects.update_or_create(
        completion_id=found,
        user=by,
        defaults={"taken_at": now, "expires_at": until, "front": False},
    )
    return found
