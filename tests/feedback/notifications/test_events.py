"""What people are told about: each event, from the place where it happens."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from pytest_django import Settings

from feedback_app.accounts.models import User
from feedback_app.feedback.models import NotificationKind, Project
from feedback_app.feedback.models.webhooks import Event, WebhookDelivery
from feedback_app.feedback.webhooks.services import webhook_create
from feedback_app.monitoring import watch
from feedback_app.serving.models import ShareLink, TrafficSplit
from feedback_app.serving.releases.services import release_flip
from feedback_app.serving.share_links.services import link_create, message_count, visitor_create
from feedback_app.serving.traffic_splits.assignments import split_close
from feedback_app.training.models import Adapter, Run, Schedule
from feedback_app.training.runs.claims import run_claim
from feedback_app.training.runs.services import run_end, run_finish, run_request
from feedback_app.training.schedules.services import schedules_run
from tests.training.gate.reports import gate_report

pytestmark = pytest.mark.django_db
KIND = NotificationKind
PUBLIC = "https://93.184.215.14/hook"  # a number: no name is asked for


def kinds(user: User) -> list[str]:
    return list(user.notifications.order_by("pk").values_list("kind", flat=True))


def finished(project: Project, admin: User, **report: float) -> Adapter:
    run = run_request(project=project, by=admin)
    claim = run_claim(run.pk)
    assert claim is not None
    name = project.adapter_name(run.number)
    found = gate_report(name, **report)
    path = f"adapters/{run.number}"
    adapter = run_finish(claim=claim, path=path, sha256="0", report=found, fit={})
    assert adapter is not None
    return adapter


def test_run_and_gate(voted_project: Project, admin: User) -> None:
    adapter = finished(voted_project, admin)
    decided = KIND.GATE_PASSED if adapter.gate_won else KIND.GATE_FAILED
    assert kinds(admin) == [KIND.RUN_FINISHED, decided]
    last = admin.notifications.order_by("-pk")[0]
    assert last.text.startswith(f"{adapter.name}: ")
    assert last.path == f"/projects/bot/runs/{adapter.run.number}/"


def test_gate_that_is_not_passed(voted_project: Project, admin: User) -> None:
    adapter = finished(voted_project, admin, up=0.45)
    assert not adapter.gate_won
    assert kinds(admin) == [KIND.RUN_FINISHED, KIND.GATE_FAILED]


@pytest.mark.parametrize("by_itself", [True, False])
def test_split_that_ends_by_its_own_rule(
    voted_project: Project, admin: User, annotator: User, by_itself: bool
) -> None:
    adapter = finished(voted_project, admin)
    webhook_create(project=voted_project, url=PUBLIC, events=[Event.SPLIT_DECIDED], by=admin)
    TrafficSplit.objects.create(
        project=voted_project, candidate=adapter, live_version="base", percent=20
    )
    admin.notifications.all().delete()

    split_close(
        project=voted_project,
        status=TrafficSplit.Status.WORSE,
        by=None if by_itself else annotator,
        reason="Live is better.",
    )

    told = list(admin.notifications.values_list("kind", "path"))
    assert told == ([(KIND.SPLIT_DECIDED, "/projects/bot/releases/")] if by_itself else [])
    sent = WebhookDelivery.objects.filter(event=Event.SPLIT_DECIDED)
    assert sent.count() == by_itself
    if by_itself:
        assert "has ended. Live is better." in admin.notifications.get().text


def test_failed_run_with_its_reason(voted_project: Project, admin: User) -> None:
    run = run_request(project=voted_project, by=admin)
    claim = run_claim(run.pk)
    assert claim is not None
    run_end(claim=claim, status=Run.Status.FAILED, error="The disk is full.")
    [told] = admin.notifications.all()
    assert told.kind == KIND.RUN_FAILED
    assert "The disk is full." in told.text


def test_release_and_the_way_back(voted_project: Project, admin: User, annotator: User) -> None:
    adapter = finished(voted_project, admin)
    admin.notifications.all().delete()
    there = release_flip(
        project=voted_project, adapter=adapter, before=None, by=None, reason="Gate passed."
    )
    release_flip(project=voted_project, adapter=None, before=there, by=annotator, reason="")
    assert kinds(admin) == [KIND.RELEASED, KIND.ROLLED_BACK]
    first, second = admin.notifications.order_by("pk")
    assert first.text == f"{adapter.name} is live instead of base. Gate passed."
    assert second.text == f"base is live instead of {adapter.name}."


def test_own_release_is_not_told(voted_project: Project, admin: User) -> None:
    adapter = finished(voted_project, admin)
    admin.notifications.all().delete()
    release_flip(project=voted_project, adapter=adapter, before=None, by=admin, reason="")
    assert kinds(admin) == []


def test_schedule_that_cannot_start_a_run_says_why_once_a_day(
    voted_project: Project, admin: User
) -> None:
    Schedule.objects.create(
        project=voted_project, enabled=True, min_new_examples=1, min_hours=0, auto_release=False
    )
    voted_project.examples.update(desirable=False)
    assert schedules_run() == []
    assert schedules_run() == []
    [told] = admin.notifications.all()
    assert told.kind == KIND.SCHEDULE_SKIPPED
    assert told.text.startswith("A run is due and does not start. ")


def test_share_link_that_is_used_up(project: Project, admin: User) -> None:
    link: ShareLink = link_create(
        project=project,
        label="Fair",
        choice="live",
        days=1,
        messages_limit=2,
        messages_each=5,
        votes_limit=1,
        by=admin,
    )[0]
    visitor = visitor_create(link)
    message_count(link=link, visitor=visitor)
    assert kinds(admin) == []
    message_count(link=link, visitor=visitor)
    [told] = admin.notifications.all()
    assert told.text == "The share link “Fair” has used up its messages."


def test_engine_that_is_down_for_two_checks(
    project: Project, admin: User, settings: Settings
) -> None:
    settings.ENGINES = {project.base_model: "http://127.0.0.1:9"}
    watch.installation_watch()
    assert kinds(admin) == []
    watch.installation_watch()
    watch.installation_watch()
    assert kinds(admin) == [KIND.ENGINE_DOWN]


def test_disk_that_is_nearly_full(
    project: Project,
    admin: User,
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings.ENGINES = {}
    settings.ARTIFACT_ROOT = tmp_path / "not" / "yet"
    asked: list[Path] = []

    def usage(path: Path) -> SimpleNamespace:
        asked.append(path)
        return SimpleNamespace(free=2**30)

    monkeypatch.setattr(watch.shutil, "disk_usage", usage)
    watch.installation_watch()
    [told] = admin.notifications.all()
    assert told.text == "The disk for adapters has 1.0 GiB left: runs may fail."
    assert asked == [tmp_path]
