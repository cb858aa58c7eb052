"""Mixing gold items into the queue at random."""

import datetime as dt
import secrets
from collections.abc import Callable

from django.db.models import Exists, OuterRef
from django.utils import timezone

from feedback_app.accounts.models import User
from feedback_app.feedback.models import CompletionQuerySet, Lease, Project, Skip


def gold_insert(
    held: list[int],
    queue: Callable[[], CompletionQuerySet],
    *,
    topic: str,
    project: Project,
    by: User,
    count: int,
    minutes: int,
) -> int | None:
    """Lease a random gold item of `topic`, if any, to a person who holds `held`; return its id.

    Return None where chance picks no gold item, none is left, or `queue` has no other item to hand
    out: what a reload adds at the end of the queue, or a filter shows beside nothing else, would be
    known as gold. Gold is placed at random because people learn to count fixed intervals. The
    database is queried only if chance picks one, so other items cost nothing extra.
    """
    if not project.gold_every or len(held) >= count or secrets.randbelow(project.gold_every):
        return None
    now = timezone.now()
    if not queue().to_hand_out(by, overlap=project.overlap, now=now).exists():
        return None
    until = now + dt.timedelta(minutes=minutes)
    return gold_lease(held, topic=topic, project=project, by=by, until=until, ahead=False)


def gold_lease(
    held: list[int], *, topic: str, project: Project, by: User, until: dt.datetime, ahead: bool
) -> int | None:
    """Lease a random gold item of `topic`, if any, and not of `held`; return its id, or None if
    none is left."""
    gold = project.completions.gold_for(by).exclude(pk__in=held)
    # a filter by version or source would show that gold is of another one
    gold = gold.filter(topic=topic) if topic else gold
    found = gold.order_by("?").values_list("pk", flat=True).first()
    if found is None:
        return None
    lease = {"taken_at": timezone.now(), "expires_at": until, "front": False, "ahead": ahead}
    Lease.objects.update_or_create(completion_id=found, user=by, defaults=lease)
    return found


def gold_renew(*, project: Project, by: User, minutes: int) -> None:
    """Renew the person's expired leases on gold items unless another person has taken items since.

    Other items return from the front of the queue in that case: gold has to do the same.
    """
    now = timezone.now()
    skipped = Skip.objects.filter(completion=OuterRef("completion"), user=by)
    here = Lease.objects.filter(completion__project=project)
    expired = here.filter(user=by, completion__gold=True, expires_at__lte=now)
    for lease in expired.exclude(Exists(skipped)):
        if not here.filter(taken_at__gt=lease.expires_at).exclude(user=by).exists():
            lease.expires_at = now + dt.timedelta(minutes=minutes)
            lease.save(update_fields=["expires_at"])
