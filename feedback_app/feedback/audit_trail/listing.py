"""The audit trail's filters and rows.

The cost does not depend on the trail's size: filters look through its newest WINDOW events.
"""

import datetime as dt
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from urllib.parse import urlencode

from django.db.models import QuerySet
from django.http import HttpRequest

from feedback_app.accounts.models import AuditEvent
from feedback_app.feedback.audit_trail.labels import LABELS, label_of
from feedback_app.feedback.exports.rows import csv_line
from feedback_app.feedback.models import Project
from feedback_app.web.days import day_of, midnight
from feedback_app.web.errors import UserError
from feedback_app.web.forms import query_choice, query_strict

#: The newest events that filters look through.
WINDOW = 10_000


@dataclass(frozen=True)
class AuditFilter:
    """The list's state, as in the URL. Empty: no restriction. Days are UTC, both included."""

    action: str
    person: str
    first: str
    last: str

    @classmethod
    def of(cls, request: HttpRequest) -> "AuditFilter":
        """Read the state from a request. Raise UserError for unknown parameters and values."""
        query_strict(request, ("action", "person", "first", "last", "page"))
        person = request.GET.get("person", "")
        if person and person != "none" and not (person.isdecimal() and len(person) < 10):
            raise UserError("person must be a number.")
        return cls(
            action=query_choice(request, "action", ("", *LABELS)),
            person=person,
            first=day_of(request, "first"),
            last=day_of(request, "last"),
        )

    def query(self) -> str:
        """Return the state as a query string."""
        state = {
            "action": self.action,
            "person": self.person,
            "first": self.first,
            "last": self.last,
        }
        return urlencode({name: value for name, value in state.items() if value})

    def select(self, project: Project) -> QuerySet[AuditEvent]:
        """Return the matching events, newest first."""
        rows = AuditEvent.objects.filter(project=project)
        if self.query():
            newest = rows.order_by("-created_at").values_list("created_at", flat=True)
            oldest = newest[WINDOW - 1 : WINDOW].first()
            if oldest is not None:
                rows = rows.filter(created_at__gte=oldest)
        if self.action:
            rows = rows.filter(action=self.action)
        if self.person:
            rows = rows.filter(actor=None if self.person == "none" else int(self.person))
        if self.first:
            rows = rows.filter(created_at__gte=midnight(self.first))
        if self.last:
            rows = rows.filter(created_at__lt=midnight(self.last) + dt.timedelta(days=1))
        return rows.select_related("actor").order_by("-created_at", "-pk")


def person_of(event: AuditEvent) -> str:
    """Return who did it; a deleted account by its number, and nobody for a worker."""
    if event.actor is not None:
        return str(event.actor)
    if event.actor_number is not None:
        return f"deleted account {event.actor_number}"
    return ""


def csv_rows(events: Iterable[AuditEvent]) -> Iterator[bytes]:
    """Yield the lines of a CSV file."""
    yield csv_line(("time", "person", "action", "label", "object", "reason", "address", "number"))
    for event in events:
        yield csv_line(
            (
                event.created_at.isoformat(),
                person_of(event),
                event.action,
                label_of(event.action),
                event.target,
                event.reason,
                event.address,
                "" if event.number is None else str(event.number),
            )
        )
