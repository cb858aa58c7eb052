"""Fault 25: two beats, a daylight saving change and a jumping clock; a schedule fires once."""

import datetime as dt
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from django.utils import timezone
from pytest_django import Settings

from feedback_app.accounts.models import User
from feedback_app.feedback.models import Project
from feedback_app.training.models import Run, Snapshot
from feedback_app.training.schedules.services import schedule_set, schedules_run
from tests.feedback.queue.test_concurrency import at_once

pytestmark = pytest.mark.slow

BERLIN = ZoneInfo("Europe/Berlin")


def scheduled(project: Project, by: User, *, hours: float) -> None:
    schedule_set(
        project=project,
        by=by,
        enabled=True,
        min_new_examples=1,
        min_hours=hours,
        auto_release=False,
    )


def end(run: Run, *, asked: dt.datetime) -> None:
    """End the run; it was requested at `asked`, and all examples are newer."""
    Snapshot.objects.filter(pk=run.snapshot_id).update(created_at=asked)
    Run.objects.filter(pk=run.pk).update(status=Run.Status.FAILED, created_at=asked)
    run.project.examples.update(created_at=asked + dt.timedelta(minutes=1))


@pytest.mark.django_db(transaction=True)
def test_two_beats_at_once_start_one_run(voted_project: Project, admin: User) -> None:
    scheduled(voted_project, admin, hours=0)
    started: list[Run] = []
    assert at_once([lambda: started.extend(schedules_run()) for _ in range(4)]) == []
    assert started == [Run.objects.get()]


@pytest.mark.django_db
@pytest.mark.parametrize(
    "evening",
    [
        dt.datetime(2026, 3, 28, 21, tzinfo=BERLIN),  # the night has 23 hours
        dt.datetime(2026, 10, 24, 21, tzinfo=BERLIN),  # and this one 25
    ],
)
def test_daylight_saving_neither_skips_nor_repeats_a_run(
    voted_project: Project, admin: User, settings: Settings, evening: dt.datetime
) -> None:
    settings.TIME_ZONE = "Europe/Berlin"
    scheduled(voted_project, admin, hours=6)
    [first] = schedules_run()
    end(first, asked=evening)
    # each half hour of the night, by the clock on the wall and so twice or never at 2:30
    ticks = [
        (evening.replace(tzinfo=None) + dt.timedelta(minutes=30 * n)).replace(
            tzinfo=BERLIN, fold=fold
        )
        for n in range(24)
        for fold in (0, 1)
    ]
    asked = [evening]
    for tick in sorted(ticks, key=lambda when: when.astimezone(dt.UTC)):
        for run in schedules_run(now=tick):
            asked.append(tick)
            end(run, asked=tick)
    gaps = [
        later.astimezone(dt.UTC) - earlier.astimezone(dt.UTC) for earlier, later in pairwise(asked)
    ]
    assert gaps == [dt.timedelta(hours=6)] * len(gaps)
    assert len(gaps) == 1


@pytest.mark.django_db
def test_clock_that_goes_back_starts_no_second_run(voted_project: Project, admin: User) -> None:
    scheduled(voted_project, admin, hours=6)
    now = timezone.now()
    [first] = schedules_run(now=now)
    end(first, asked=now)
    for back in (1, 24, 24 * 365):
        assert schedules_run(now=now - dt.timedelta(hours=back)) == []
    assert len(schedules_run(now=now + dt.timedelta(hours=7))) == 1


@pytest.mark.django_db
def test_clock_that_jumps_ahead_starts_one_run(voted_project: Project, admin: User) -> None:
    scheduled(voted_project, admin, hours=6)
    now = timezone.now()
    [first] = schedules_run(now=now)
    end(first, asked=now)
    ahead = now + dt.timedelta(days=400)
    [second] = schedules_run(now=ahead)
    end(second, asked=ahead)
    assert schedules_run(now=ahead) == []
    assert schedules_run(now=now) == []  # the clock was set right again
