"""A chain of hashes over the audit trail, so that events changed or removed later are found.

Each event has a digest of its content, and a chain value over the chain value of the event before
and its own digest. A worker links new events a few seconds after they were written: the order of
the chain is that of `number`, as transactions may end in another order than ids are given. A person
who can write to the database can also write a new chain from the changed event on; the log line of
each link, kept elsewhere, shows that.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass

import structlog
from django.db import transaction

from feedback_app.accounts.models import AuditEvent

log = structlog.get_logger(__name__)

#: Events that are linked in one transaction.
LINKED_AT_ONCE = 1_000
BEGINNING = "0" * 64


@dataclass(frozen=True)
class Fault:
    """An event of the chain that is not as it was written."""

    number: int
    what: str


def digest_of(event: AuditEvent) -> str:
    """Return the SHA-256 of an event's content."""
    content = [
        event.project_id,
        event.actor_number,
        event.action,
        event.target,
        event.reason,
        event.address,
        event.created_at.isoformat(),
    ]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def linked(before: str, digest: str) -> str:
    return hashlib.sha256(f"{before}{digest}".encode()).hexdigest()


def events_link() -> int:
    """Add up to LINKED_AT_ONCE new events to the chain; return how many.

    Of two workers that do so at once one waits: each locks the first event of all.
    """
    with transaction.atomic():
        AuditEvent.objects.order_by("pk").select_for_update().first()
        last = AuditEvent.objects.filter(number__isnull=False).order_by("-number").first()
        number, chain = (0, BEGINNING) if last is None else (last.number or 0, last.chain)
        fresh = list(AuditEvent.objects.filter(number=None).order_by("pk")[:LINKED_AT_ONCE])
        for event in fresh:
            number += 1
            event.number, event.digest = number, digest_of(event)
            event.chain = chain = linked(chain, event.digest)
        AuditEvent.objects.bulk_update(fresh, ["number", "digest", "chain"])
    if fresh:
        log.info("audit_linked", number=number, chain=chain)
    return len(fresh)


def chain_faults() -> Iterator[Fault]:
    """Yield what is wrong with the chain, in order. Reads the whole trail.

    The content of an event from which an erasure removed something is not compared.
    """
    expected, before = 1, BEGINNING
    events = AuditEvent.objects.filter(number__isnull=False).order_by("number")
    for event in events.iterator():
        number = event.number or 0
        if number != expected:
            yield Fault(expected, f"events {expected} to {number - 1} are missing")
        elif event.chain != linked(before, event.digest):
            yield Fault(number, "does not follow from the event before")
        if not event.redacted and event.digest != digest_of(event):
            yield Fault(number, "was changed after it was written")
        expected, before = number + 1, event.chain
