"""Adding, retiring and restoring probes, and which patterns are refused."""

from typing import Any

import pytest

from feedback_app.accounts.models import AuditEvent, User
from feedback_app.feedback.models import Probe, Project
from feedback_app.feedback.probes import services
from feedback_app.feedback.probes.patterns import pattern_faults
from feedback_app.feedback.probes.services import probe_add, probe_restore, probe_retire
from feedback_app.web.errors import UserError

pytestmark = pytest.mark.django_db

Kind = Probe.Kind
QUESTION = [{"role": "user", "content": "What does it cost?"}]


def add(project: Project, by: User, **given: Any) -> Probe:
    values: dict[str, Any] = {"messages": QUESTION, "kind": Kind.CONTAINS, "pattern": "9 euros"}
    return probe_add(project=project, by=by, **values | given)


def actions() -> list[str]:
    found = AuditEvent.objects.filter(action__startswith="probe.").order_by("pk")
    return list(found.values_list("action", flat=True))


def test_probe_is_added_retired_and_restored_with_audit_entries(
    project: Project, admin: User
) -> None:
    probe = add(project, admin, note="The price list.")
    assert (probe.messages, probe.created_by, probe.retired_at) == (QUESTION, admin, None)
    assert probe_retire(probe=probe, by=admin)
    probe.refresh_from_db()
    assert probe.retired_at is not None
    assert not probe_retire(probe=probe, by=admin), "it is retired already"
    assert probe_restore(probe=probe, by=admin)
    assert not probe_restore(probe=probe, by=admin), "it is active already"
    probe.refresh_from_db()
    assert probe.retired_at is None
    assert actions() == ["probe.add", "probe.retire", "probe.restore"]


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"pattern": " "}, "Type what the answers must or must not contain"),
        ({"pattern": "a" * 501}, "has 501 characters; at most 500"),
        ({"pattern": "a\nb"}, "on one line"),
        ({"pattern": "a\x00b"}, "without control characters"),
        ({"pattern": "(", "kind": Kind.MATCHES}, "no regular expression of Python (missing )"),
        ({"pattern": "a{99999999999}", "kind": Kind.MATCHES}, "no regular expression of Python"),
        ({"pattern": "\\p{L}", "kind": Kind.NOT_MATCHES}, "bad escape"),
        ({"messages": []}, "needs at least one message"),
        ({"messages": [{"role": "assistant", "content": "Hi"}]}, "must be the user's"),
        ({"messages": [{"role": "user", "content": "a" * 20_001}]}, "shorten it to 20,000"),
        ({"messages": [{"role": "user", "content": "a\x00"}]}, "Remove the NUL"),
        ({"note": "a" * 201}, "Shorten the note to 200"),
        ({"kind": "sounds"}, "The kind must be one of: contains"),
    ],
)
def test_faulty_probe_is_refused_with_what_to_do(
    project: Project, admin: User, given: dict[str, Any], text: str
) -> None:
    with pytest.raises(UserError) as caught:
        add(project, admin, **given)
    assert text in str(caught.value)
    assert not project.probes.exists()
    assert actions() == []


def test_every_fault_is_reported_at_once(project: Project, admin: User) -> None:
    with pytest.raises(UserError) as caught:
        add(project, admin, messages=[], pattern="")
    assert "at least one message" in str(caught.value)
    assert "Type what the answers" in str(caught.value)


@pytest.mark.parametrize(
    "pattern",
    [
        "(?:a{60000}){60000}",
        "(((a{100}){100}){100})",
        "(?:" * 45 + "a" + "?){2,3}" * 45,
        "(?:" * 60 + "a" + "|b)+" * 60,
        "(?x)" + "(" * 60 + "a" + ") +" * 60,
    ],
)
def test_pattern_that_would_take_all_memory_to_compile_is_refused(pattern: str) -> None:
    """The package that matches them in the worker unrolls repeated groups."""
    assert len(pattern) <= 500
    faults = pattern_faults(Kind.MATCHES, pattern)
    assert len(faults) == 1
    assert "repeats too much" in faults[0]
    assert pattern_faults(Kind.CONTAINS, pattern) == [], "it is a text there"


def test_brace_that_means_approximate_matching_is_refused() -> None:
    assert "Write \\{" in pattern_faults(Kind.MATCHES, "(?:refund){e<=3}")[0]
    assert pattern_faults(Kind.MATCHES, r"\{e<=3\}") == []


@pytest.mark.parametrize(
    "pattern",
    [
        r"\b\d{4}-\d{2}-\d{2}\b",
        r"(?i)\brefunds?\b.{0,200}\b(?:30|thirty) days",
        r"https?://(?:[\w-]+\.)+[a-z]{2,}(?:/\S*)?",
        r"(a+)+$",
        r"\N{EURO SIGN}\s?9",
        r"^(?!.*\b(?:cannot|can't)\b).*$",
        "退款",
    ],
)
def test_usual_expressions_are_accepted(pattern: str) -> None:
    assert pattern_faults(Kind.MATCHES, pattern) == []


def test_number_of_active_probes_is_limited(
    project: Project, admin: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert services.MOST_ACTIVE == 200
    monkeypatch.setattr(services, "MOST_ACTIVE", 2)
    first = add(project, admin)
    add(project, admin, pattern="10 euros")
    with pytest.raises(UserError, match="at most 2 active probes: retire one"):
        add(project, admin, pattern="11 euros")
    probe_retire(probe=first, by=admin)
    add(project, admin, pattern="11 euros")
    with pytest.raises(UserError, match="at most 2 active probes"):
        probe_restore(probe=first, by=admin)
    assert project.probes.filter(retired_at=None).count() == 2


def test_same_probe_is_added_once(project: Project, admin: User) -> None:
    first = add(project, admin)
    with pytest.raises(UserError, match="has this probe already"):
        add(project, admin)
    add(project, admin, kind=Kind.LACKS)
    add(project, admin, messages=[{"role": "user", "content": "And tomorrow?"}])
    probe_retire(probe=first, by=admin)
    add(project, admin)
