"""Schedules that wait for agreement and for the end of quiet hours, and say so."""

import datetime as dt
from collections.abc import Callable
from typing import Any

import pytest
from django.core.cache import cache
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django import Settings

from feedback_app.accounts.models import AuditEvent, User
from feedback_app.feedback.models import Notification, Project, Source, Verdict
from feedback_app.feedback.quality.agreement import agreed_share
from feedback_app.feedback.quality.selectors import agreed
from feedback_app.feedback.votes.services import vote_cast
from feedback_app.training.models import Schedule
from feedback_app.training.runs.services import run_request
from feedback_app.training.schedules.selectors import next_run
from feedback_app.training.schedules.services import Thresholds, schedule_set, schedules_run
from feedback_app.web.errors import UserError

pytestmark = pytest.mark.django_db

As = Callable[[User], Client]
BODY = {"enabled": "on", "min_new_examples": "20", "min_hours": "0"}


@pytest.fixture
def set_schedule(voted_project: Project, admin: User) -> Callable[..., Schedule]:
    """`set_schedule(min_agreement=70)`: a schedule that is due but for these thresholds."""
    Project.objects.filter(pk=voted_project.pk).update(person_share=100)
    voted_project.refresh_from_db()

    def set_to(**thresholds: Any) -> Schedule:
        return schedule_set(
            project=voted_project,
            by=admin,
            enabled=True,
            min_new_examples=1,
            min_hours=0,
            auto_release=False,
            thresholds=Thresholds(**thresholds),
        )

    return set_to


def night(hours: int) -> dict[str, Any]:
    """Quiet hours that began an hour ago and take so many hours more, in UTC."""
    now = timezone.now()
    start, end = now - dt.timedelta(hours=1), now + dt.timedelta(hours=hours)
    return {"quiet_from": start.time(), "quiet_until": end.time(), "time_zone": "UTC"}


def test_fault_of_one_project_keeps_no_other_waiting(
    set_schedule: Callable[..., Schedule], outsider: User
) -> None:
    Schedule.objects.create(
        project=Project.objects.get(slug="other"),
        enabled=True,
        min_new_examples=1,
        min_hours=0,
        quiet_from=dt.time(1),
        quiet_until=dt.time(2),
        time_zone="Nowhere/At-All",  # of another installation, from which it was restored
    )
    set_schedule()
    assert len(schedules_run()) == 1


def test_no_run_starts_in_quiet_hours(
    set_schedule: Callable[..., Schedule], voted_project: Project
) -> None:
    schedule = set_schedule(**night(2))
    now = timezone.now()
    assert schedules_run(now=now) == []
    waits = next_run(voted_project, now=now)
    assert not waits.due
    assert waits.quiet
    assert waits.earliest is not None
    assert abs(waits.earliest - now - dt.timedelta(hours=2)) < dt.timedelta(minutes=1)
    assert not Notification.objects.exists(), "it is as the project wants it"
    [run] = schedules_run(now=waits.earliest)
    assert run.project_id == schedule.project_id


def test_quiet_hours_count_after_the_hours_between_runs(
    set_schedule: Callable[..., Schedule], voted_project: Project, admin: User
) -> None:
    run = run_request(project=voted_project, by=admin)
    voted_project.runs.update(status="failed")
    voted_project.examples.update(created_at=timezone.now() + dt.timedelta(minutes=1))
    due = run.created_at + dt.timedelta(hours=3)
    schedule = set_schedule(
        quiet_from=(due - dt.timedelta(hours=1)).time(),
        quiet_until=(due + dt.timedelta(hours=1)).time(),
    )
    Schedule.objects.filter(pk=schedule.pk).update(min_hours=3)
    waits = next_run(voted_project, now=run.created_at)
    assert (waits.earliest, waits.quiet) == (due + dt.timedelta(hours=1), True)


def test_no_run_starts_while_annotators_agree_too_little(
    set_schedule: Callable[..., Schedule], voted_project: Project, admin: User
) -> None:
    set_schedule(min_agreement=75)
    assert agreed(voted_project) is None
    assert next_run(voted_project).due, "nobody can tell yet"
    cache.clear()
    for number, completion in enumerate(voted_project.completions.order_by("pk")[:4]):
        own = completion.votes.get().verdict
        other = Verdict.UP if own == Verdict.DOWN else Verdict.DOWN
        vote_cast(
            completion=completion, verdict=own if number < 2 else other, by=admin,
            source=Source.ANNOTATE,
        )  # fmt: skip

    assert agreed(voted_project) == 0.5
    assert schedules_run() == []
    assert schedules_run() == []

    waits = next_run(voted_project)
    assert not waits.due
    assert "agree on 50 % of verdicts on the same answer, below 75 %" in waits.objection
    told = Notification.objects.filter(user=admin, kind="schedule.skipped")
    assert told.count() == 1, "once a day"
    assert "below 75 %" in told.get().text
    set_schedule(min_agreement=50)
    assert len(schedules_run()) == 1


def test_share_of_equal_verdicts() -> None:
    assert agreed_share([(1, 0), (0, 1)]) is None
    assert agreed_share([(2, 0), (0, 2), (1, 1), (1, 0)]) == pytest.approx(2 / 3)
    assert agreed_share([(2, 1)]) == pytest.approx(1 / 3)


# -- the page


def test_thresholds_are_saved_and_shown(
    voted_project: Project, admin: User, as_user: As, settings: Settings
) -> None:
    settings.SCHEDULE_TIME_ZONE = "Asia/Kolkata"
    client = as_user(admin)
    page = reverse("runs", args=[voted_project.slug])
    assert "Empty: Asia/Kolkata." in client.get(page).content.decode()
    values = {"min_agreement": "70", "quiet_from": "22:00", "quiet_until": "06:30"}
    client.post(
        reverse("schedule", args=[voted_project.slug]),
        BODY | values | {"time_zone": "Europe/Berlin"},
    )

    schedule = Schedule.objects.get()
    assert (schedule.min_agreement, schedule.time_zone) == (70, "Europe/Berlin")
    assert (schedule.quiet_from, schedule.quiet_until) == (dt.time(22), dt.time(6, 30))
    text = client.get(page).content.decode()
    for shown in ('value="22:00"', 'value="06:30"', 'value="Europe/Berlin"', 'value="70"'):
        assert shown in text
    target = AuditEvent.objects.get(action="schedule.set").target
    assert target == (
        "on: 20 examples, 0 h, agreement from 70 %, quiet 22:00 to 06:30 Europe/Berlin"
    )


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({"min_agreement": "0"}, "greater than or equal to 1"),
        ({"min_agreement": "101"}, "less than or equal to 100"),
        ({"time_zone": "Mars/Olympus"}, "There is no time zone Mars/Olympus."),
        ({"time_zone": "<script>"}, "There is no time zone &lt;script&gt;."),
        ({"time_zone": "../../etc/passwd"}, "There is no time zone"),
        ({"quiet_from": "22:00"}, "Say when the quiet hours end."),
        ({"quiet_until": "22:00"}, "Say when the quiet hours begin."),
        ({"quiet_from": "22:00", "quiet_until": "22:00"}, "This leaves no time for a run."),
        ({"quiet_from": "25:00", "quiet_until": "06:00"}, "Enter a valid time."),
    ],
)
def test_invalid_thresholds_are_refused_at_their_field(
    values: dict[str, str], error: str, project: Project, admin: User, as_user: As
) -> None:
    answer = as_user(admin).post(reverse("schedule", args=[project.slug]), BODY | values)
    assert answer.status_code == 400
    assert error in answer.content.decode()
    assert not Schedule.objects.exists()


@pytest.mark.parametrize(
    "values",
    [
        {"min_agreement": 0},
        {"quiet_from": dt.time(1)},
        {"quiet_from": dt.time(1), "quiet_until": dt.time(1)},
        {"time_zone": "Mars/Olympus"},
    ],
)
def test_service_refuses_what_the_form_refuses(
    values: dict[str, Any], set_schedule: Callable[..., Schedule]
) -> None:
    with pytest.raises(UserError):
        set_schedule(**values)


def test_next_start_is_shown_by_the_clock_of_the_zone(
    set_schedule: Callable[..., Schedule], voted_project: Project, admin: User, as_user: As
) -> None:
    set_schedule(**night(2) | {"time_zone": "UTC"})
    waits = next_run(voted_project)
    assert waits.earliest is not None
    shown = f"{waits.earliest:%H:%M} (UTC)"
    assert waits.earliest_there.endswith(shown)
    for name in ("runs", "project-home"):
        text = as_user(admin).get(reverse(name, args=[voted_project.slug])).content.decode()
        assert "After the quiet hours" in text
        assert shown in text
