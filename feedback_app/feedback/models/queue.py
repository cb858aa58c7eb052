"""The annotation queue: its orders and indexes, leases and skips."""

import datetime as dt
from typing import ClassVar

from django.conf import settings
from django.db import models
from django.db.models import OuterRef, Q, QuerySet
from django.utils import timezone

#: The sort keys of each order; QUEUE_INDEXES has an index for each.
ORDERS: dict[str, tuple[str, ...]] = {
    # the first completion of every prompt before the second of any
    "balanced": ("vote_count", "queue_position", "id"),
    "newest": ("vote_count", "-version_number", "queue_position", "id"),
    "contested": ("vote_count", "queue_position", "id"),
    "unsure": ("vote_count", "unsure", "id"),
    "uploaded": ("vote_count", "id"),
}
#: Orders that put some completions first; the rest follows in balanced order.
FIRST_ONLY: dict[str, Q] = {
    "contested": Q(contested=True),
    "unsure": Q(unsure__isnull=False),
}


def parts_of(order: str) -> int:
    """Return the number of parts that `in_queue_order` returns."""
    return 2 if order in FIRST_ONLY else 1


def queue_index(name: str, *order: str, within: str | None = None, **only: bool) -> models.Index:
    """Return an index for this order.

    `vote_count` precedes it, so that completions with enough votes are outside the range that a
    query reads.
    """
    fields = ["project", *([within] if within else []), "vote_count", *order]
    return models.Index(fields=fields, condition=Q(queued=True, flagged=False, **only), name=name)


#: One for each order and each filter (ORDERS, QueueView), and one for both where an order is by
#: age, because the completions of one version may all be at the end of it.
QUEUE_INDEXES = [
    queue_index("queue_balanced", "queue_position", "id"),
    queue_index("queue_newest", "-version_number", "queue_position", "id"),
    queue_index("queue_uploaded", "id"),
    queue_index("queue_contested", "queue_position", "id", contested=True),
    queue_index("queue_unsure", "unsure", "id", unsure__isnull=False),
    queue_index("queue_version", "queue_position", "id", within="version"),
    queue_index("queue_version_uploaded", "id", within="version"),
    queue_index("queue_source", "queue_position", "id", within="source"),
    queue_index("queue_topic", "queue_position", "id", within="topic"),
]


class Lease(models.Model):
    """A completion is reserved for one person until `expires_at`."""

    completion = models.ForeignKey(
        "feedback.Completion", on_delete=models.CASCADE, related_name="leases"
    )
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="leases"
    )
    taken_at = models.DateTimeField(default=timezone.now)
    expires_at = models.DateTimeField()
    # an item that came back by undo is shown before the person's other items
    front = models.BooleanField(default=False)
    # kept by the browser for the time without a connection, and not yet on its screen
    ahead = models.BooleanField(default=False, db_default=False)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["completion", "user"], name="one_lease_per_person")
        ]
        indexes: ClassVar = [
            models.Index(fields=["user", "expires_at"], name="lease_of_user"),
            models.Index(fields=["expires_at"], condition=Q(ahead=True), name="lease_ahead"),
        ]

    def __str__(self) -> str:
        return f"{self.completion_id} for {self.user_id}"


class Skip(models.Model):
    """A person skipped a completion; others still get it unless it was flagged."""

    completion = models.ForeignKey(
        "feedback.Completion", on_delete=models.CASCADE, related_name="skips"
    )
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="skips"
    )
    # stays when an admin restores the item, and when the person votes on it
    flag = models.BooleanField(default=False)
    reason = models.CharField(max_length=200, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["completion", "user"], name="one_skip_per_person")
        ]
        indexes: ClassVar = [
            models.Index(fields=["completion"], condition=Q(flag=True), name="skip_flagged")
        ]

    def __str__(self) -> str:
        return f"{'flag' if self.flag else 'skip'} of {self.completion_id}"


def leases_on(now: dt.datetime | None) -> QuerySet[Lease]:
    """Return the unexpired leases of a completion, for a subquery."""
    now = timezone.now() if now is None else now
    return Lease.objects.filter(completion=OuterRef("pk"), expires_at__gt=now)
