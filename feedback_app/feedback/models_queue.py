"""The indexes that the queue is read along."""

from django.db import models
from django.db.models import Q


def queue_index(name: str, *order: str, within: str | None = None, **only: bool) -> models.Index:
    """An index that hands out in this order. `vote_count` stands before it, so that answers with
    enough votes lie behind the range that a query reads, however many they are."""
    fields = ["project", *([within] if within else []), "vote_count", *order]
    return models.Index(fields=fields, condition=Q(queued=True, flagged=False, **only), name=name)


#: One an order and a filter (querysets.ORDERS, QueueView), and one for both where an order goes by
#: age: what one version answered lies together there, and may lie at the far end.
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
