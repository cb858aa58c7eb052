"""Slipping gold items in among the others, so that nobody can tell them."""

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
    """A gold item of `among`, leased to the person who holds `held`, if chance will.

    Chance, since a gold item at every twentieth place is one that people learn to count to. Asks
    the database only then, so others' cycles cost what they cost without gold.
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
