"""The chain of hashes over the audit trail."""

import pytest

from feedback_app.accounts.audit import audit, audited_from
from feedback_app.accounts.audit_chain import chain_faults, events_link
from feedback_app.accounts.models import AuditEvent, User
from feedback_app.feedback import tasks
from feedback_app.feedback.models import Project
from feedback_app.privacy.erasure import names_erase

pytestmark = pytest.mark.django_db


@pytest.fixture
def events(project: Project, admin: User) -> list[AuditEvent]:
    """Three events in the chain, after those of the fixtures."""
    for number in range(3):
        audit(project=project, actor=admin, action="run.request", target=f"Run {number}")
    events_link()
    return list(AuditEvent.objects.filter(action="run.request").order_by("number"))


def faults() -> list[tuple[int, str]]:
    return [(fault.number, fault.what) for fault in chain_faults()]


def test_new_events_are_linked_once_and_in_order(project: Project, admin: User) -> None:
    first = AuditEvent.objects.count()
    audit(project=project, actor=admin, action="run.request", target="Run 1")
    assert events_link() == first + 1
    assert events_link() == 0
    audit(project=project, actor=None, action="run.request", target="Run 2")
    assert events_link() == 1

    numbers = list(AuditEvent.objects.order_by("pk").values_list("number", flat=True))
    assert numbers == list(range(1, first + 3))
    assert faults() == []


def test_event_that_commits_late_is_linked_after_the_others(
    events: list[AuditEvent], project: Project, admin: User
) -> None:
    # ids are given when a transaction writes, not when it ends: this one has an earlier id
    AuditEvent.objects.create(
        pk=-1, project=project, actor=admin, action="run.request", target="Run 9"
    )
    audit(project=project, actor=admin, action="run.request", target="Run 10")
    events_link()
    assert faults() == []


@pytest.mark.parametrize(
    "change",
    [
        {"target": "Run 99"},
        {"reason": "Because."},
        {"actor_number": 4711},
        {"address": "203.0.113.7"},
        {"action": "run.cancel"},
    ],
)
def test_changed_event_is_found(events: list[AuditEvent], change: dict[str, object]) -> None:
    AuditEvent.objects.filter(pk=events[1].pk).update(**change)
    assert faults() == [(events[1].number, "was changed after it was written")]


def test_changed_event_with_a_new_digest_is_found(events: list[AuditEvent]) -> None:
    from feedback_app.accounts.audit_chain import digest_of

    event = events[1]
    event.target = "Run 99"
    event.digest = digest_of(event)
    event.save()
    assert faults() == [(event.number, "does not follow from the event before")]


def test_removed_event_is_found(events: list[AuditEvent]) -> None:
    number = events[1].number
    events[1].delete()
    assert faults() == [(number, f"events {number} to {number} are missing")]


def test_deleted_account_and_erased_names_leave_the_chain_intact(
    events: list[AuditEvent], project: Project
) -> None:
    person = User.objects.create_user("gone@example.com")
    with audited_from(lambda: "203.0.113.7"):
        audit(project=project, actor=person, action="run.request", target="Run 4")
    events_link()
    [event] = AuditEvent.objects.filter(actor=person)
    assert event.address == "203.0.113.7"

    names_erase(user=person, project=project)
    person.delete()

    event.refresh_from_db()
    assert (event.actor, event.address) == (None, "")
    assert event.actor_number is not None
    assert faults() == []


def test_tick_links_events(
    events: list[AuditEvent], project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = []
    task = tasks.link_audit_events
    monkeypatch.setattr(task, "apply_async", lambda ids, **_: (sent.append(ids), task(*ids)))
    tasks.dispatch()
    assert sent == []  # nothing is new
    audit(project=project, actor=None, action="run.request", target="Run 5")
    tasks.dispatch()
    assert len(sent) == 1
    assert not AuditEvent.objects.filter(number=None).exists()
