"""The page of the audit trail."""

import ast
import csv
import io
from collections.abc import Callable
from pathlib import Path

import pytest
from django.conf import settings
from django.test import Client, RequestFactory
from django.urls import reverse
from pytest_django.fixtures import DjangoAssertNumQueries

from feedback_app.accounts.audit import audit
from feedback_app.accounts.models import AuditEvent, User
from feedback_app.config.audit_address import client_address
from feedback_app.feedback.audit_trail.labels import LABELS
from feedback_app.feedback.models import Project
from feedback_app.serving.models import TrafficSplit

pytestmark = pytest.mark.django_db

As = Callable[[User], Client]


@pytest.fixture
def page(project: Project, admin: User) -> str:
    audit(project=project, actor=admin, action="run.request", target="Run 1")
    audit(
        project=project, actor=None, action="release", target="bot@1", reason="=cmd|' /C calc'!A0"
    )
    return reverse("audit", args=[project.slug])


def shown(client: Client, url: str) -> list[tuple[str, str, str]]:
    return [
        (person, label, event.target) for event, label, person in client.get(url).context["rows"]
    ]


def test_events_are_shown_newest_first_with_labels(page: str, admin: User, as_user: As) -> None:
    client = as_user(admin)
    assert shown(client, page)[:2] == [
        ("", "Version released", "bot@1"),
        ("Ada Admin", "Run requested", "Run 1"),
    ]
    assert "automatic" in client.get(page).content.decode()


def test_events_are_filtered(page: str, admin: User, as_user: As) -> None:
    client = as_user(admin)
    AuditEvent.objects.filter(target="Run 1").update(created_at="2026-03-02T12:00:00Z")

    assert [row[2] for row in shown(client, f"{page}?action=run.request")] == ["Run 1"]
    assert [row[2] for row in shown(client, f"{page}?person=none")] == ["bot@1"]
    assert "Run 1" in [row[2] for row in shown(client, f"{page}?person={admin.pk}")]
    for days, found in (
        ("first=2026-03-02&last=2026-03-02", True),
        ("first=2026-03-03", False),
        ("last=2026-03-01", False),
    ):
        assert ("Run 1" in [row[2] for row in shown(client, f"{page}?{days}")]) == found
    huge = "9" * 30
    wrongs = (
        "action=dance",
        "first=yesterday",
        "last=9999-12-31",
        "person=x",
        f"person={huge}",
        "who=me",
    )
    for wrong in wrongs:
        assert client.get(f"{page}?{wrong}").status_code == 400


def test_download_has_the_filter_and_is_recorded(page: str, admin: User, as_user: As) -> None:
    client = as_user(admin)
    url = f"{page}export/?action=release"

    answer = client.get(url)

    text = b"".join(answer.streaming_content).decode()
    [row] = csv.DictReader(io.StringIO(text))
    assert (row["action"], row["label"], row["object"]) == ("release", "Version released", "bot@1")
    assert row["reason"].startswith("'=")  # no spreadsheet takes it for a formula
    export = AuditEvent.objects.get(action="audit.export")
    assert (export.actor, export.target) == (admin, "action=release")


def test_event_names_the_client(project: Project, admin: User, as_user: As) -> None:
    client = as_user(admin)
    client.post(reverse("project-archive", args=[project.slug]), REMOTE_ADDR="203.0.113.7")
    assert AuditEvent.objects.get(action="project.archive").address == "203.0.113.7"
    page = client.get(reverse("audit", args=[project.slug])).content.decode()
    assert "203.0.113.7" in page


def test_deleted_account_is_named_by_its_number(project: Project, admin: User, as_user: As) -> None:
    person = User.objects.create_user("gone@example.com", name="Gone Person")
    audit(project=project, actor=person, action="run.request", target="Run 7")
    number = person.pk
    person.delete()
    text = as_user(admin).get(reverse("audit", args=[project.slug])).content.decode()
    assert f"deleted account {number}" in text
    assert "Gone Person" not in text


def test_events_of_other_projects_are_not_shown(
    page: str, outsider: User, admin: User, as_user: As
) -> None:
    other = outsider.memberships.get().project
    audit(project=other, actor=outsider, action="run.request", target="Run of another")
    assert "Run of another" not in as_user(admin).get(page).content.decode()
    assert as_user(outsider).get(page).status_code == 404


def test_page_needs_as_many_queries_for_more_events(
    page: str,
    project: Project,
    admin: User,
    as_user: As,
    django_assert_max_num_queries: DjangoAssertNumQueries,
) -> None:
    for number in range(60):
        audit(project=project, actor=admin, action="run.request", target=f"Run {number}")
    client = as_user(admin)
    with django_assert_max_num_queries(10):
        assert len(shown(client, f"{page}?person={admin.pk}")) == 50


def test_every_action_has_a_label() -> None:
    actions = {f"split.{status}" for status in TrafficSplit.Status.values if status != "running"}
    for path in Path(settings.BASE_DIR, "feedback_app").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            if name in ("audit", "_flagged_set"):
                values = [keyword.value for keyword in node.keywords if keyword.arg == "action"]
                actions |= {
                    found.value
                    for value in values
                    for found in ast.walk(value)
                    if isinstance(found, ast.Constant) and isinstance(found.value, str)
                }
    assert {action for action in actions if "." in action or action == "release"} - {
        "split."
    } <= set(LABELS)
    assert len(actions) > 50


def test_address_of_a_broken_proxy_fits_its_column(rf: RequestFactory) -> None:
    assert len(client_address(rf.get("/", REMOTE_ADDR="2001:" + "0" * 100))) <= 45
