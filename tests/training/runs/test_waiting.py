"""Projects share the workers: the order of waiting runs, their places, several workers at once."""

import datetime as dt
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from feedback_app.accounts.models import AuditEvent, User
from feedback_app.feedback.models import Project
from feedback_app.feedback.projects.services import project_create
from feedback_app.training.models import Run, Snapshot
from feedback_app.training.runs.claims import run_claim
from feedback_app.training.runs.config import RunConfig
from feedback_app.training.runs.services import run_cancel, run_resume
from feedback_app.training.runs.waiting import Place, place_of, run_claim_next, waiting_runs
from feedback_app.training.tasks import train_run
from tests.engines import wait_until
from tests.stacks import database_url

As = Callable[[User], Client]
NOW = timezone.now()


@pytest.fixture(autouse=True)
def _now(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pages read the real time, and this module may have been imported minutes ago."""
    monkeypatch.setattr(sys.modules[__name__], "NOW", timezone.now())


@pytest.fixture
def projects(admin: User) -> list[Project]:
    return [
        project_create(slug=slug, name=slug, base_model="tiny", owner=admin)
        for slug in ("one", "two", "three")
    ]


def run_make(project: Project, *, examples: int = 40, **fields: Any) -> Run:
    """Make a run of this many training examples and one epoch."""
    snapshot = Snapshot.objects.create(project=project, train_up=examples, train_down=0)
    config = RunConfig(epochs=1).as_json()
    values: dict[str, Any] = {"trigger": Run.Trigger.PERSON, "config": config} | fields
    number = project.runs.count() + 1
    created_at = values.pop("created_at", None)
    run = Run.objects.create(project=project, number=number, snapshot=snapshot, **values)
    if created_at is not None:
        Run.objects.filter(pk=run.pk).update(created_at=created_at)
        run.refresh_from_db()
    return run


def finished(project: Project, *, minutes: float, hours_ago: float = 1, **fields: Any) -> Run:
    """Make a run that took a worker for this long and ended this long ago."""
    end = NOW - dt.timedelta(hours=hours_ago)
    return run_make(
        project,
        status=fields.pop("status", Run.Status.SUCCEEDED),
        started_at=end - dt.timedelta(minutes=minutes),
        heartbeat_at=end,
        finished_at=end,
        **fields,
    )


def working(project: Project, *, minutes: float) -> Run:
    """Make a run that has been in progress for this long."""
    return run_make(
        project,
        status=Run.Status.RUNNING,
        started_at=NOW - dt.timedelta(minutes=minutes),
        heartbeat_at=timezone.now(),
    )


# -- the order


@pytest.mark.django_db
def test_run_of_the_project_with_the_least_worker_time_is_next(projects: list[Project]) -> None:
    one, two, three = projects
    for hours_ago in (1, 2):
        finished(one, minutes=10, hours_ago=hours_ago)
    finished(two, minutes=30)
    finished(three, minutes=5, status=Run.Status.FAILED)
    runs = {project: run_make(project) for project in (two, one, three)}
    assert waiting_runs() == [runs[three], runs[one], runs[two]]
    claim = run_claim_next()
    assert claim is not None
    assert claim.row == runs[three]


@pytest.mark.django_db
def test_runs_of_projects_without_worker_time_are_taken_as_they_came(
    projects: list[Project],
) -> None:
    runs = [run_make(project) for project in (projects[1], projects[2], projects[0])]
    assert waiting_runs() == runs


@pytest.mark.django_db
def test_worker_time_before_the_last_day_does_not_count(projects: list[Project]) -> None:
    one, two, _ = projects
    finished(one, minutes=600, hours_ago=25)
    # the part of it within the day counts: an hour
    finished(two, minutes=120, hours_ago=23)
    later = run_make(one)
    runs = [run_make(two), later]
    assert waiting_runs(NOW) == [runs[1], runs[0]]
    finished(one, minutes=90, hours_ago=0)
    assert waiting_runs(NOW) == runs


@pytest.mark.django_db
def test_run_resumed_days_later_is_not_charged_for_the_pause(
    projects: list[Project], admin: User
) -> None:
    one, two, _ = projects
    run = finished(one, minutes=10, hours_ago=100, status=Run.Status.CANCELLED)
    run_resume(run=run, by=admin)
    claim = run_claim(run.pk)
    assert claim is not None
    claim.update(status=Run.Status.CANCELLED, finished_at=timezone.now())
    finished(two, minutes=1, hours_ago=2)
    runs = [run_make(one), run_make(two)]
    assert waiting_runs() == runs, "a resumed run counted from its first attempt on"


@pytest.mark.django_db
def test_abandoned_run_waits_like_the_others(projects: list[Project]) -> None:
    one, two, _ = projects
    abandoned = working(one, minutes=500)
    Run.objects.filter(pk=abandoned.pk).update(heartbeat_at=NOW - dt.timedelta(minutes=450))
    fresh = run_make(two)
    assert waiting_runs() == [fresh, abandoned]


@pytest.mark.django_db
def test_message_about_one_run_executes_the_one_that_is_next(
    projects: list[Project], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two, _ = projects
    finished(one, minutes=10)
    heavy, light = run_make(one), run_make(two)
    # without input files the trainer is not started: the run fails with the reason
    monkeypatch.setattr("feedback_app.training.runs.execution.sequence.prepare", refuse)
    for _ in range(3):  # the third finds nothing to do
        train_run(heavy.pk)
    found = {run.pk: run for run in Run.objects.filter(pk__in=[heavy.pk, light.pk])}
    assert [found[run.pk].status for run in (heavy, light)] == [Run.Status.FAILED] * 2
    assert found[light.pk].finished_at < found[heavy.pk].finished_at
    assert {run.attempt for run in found.values()} == {1}


def refuse(run: Run) -> None:
    raise OSError("no disk")


# -- places and estimates


@pytest.mark.django_db
def test_start_follows_from_earlier_runs_of_the_projects_before(projects: list[Project]) -> None:
    one, two, three = projects
    finished(one, minutes=60, examples=40, hours_ago=10)
    finished(two, minutes=10, examples=20, hours_ago=10)
    working(one, minutes=15)  # 45 minutes left
    # as much worker time as `two`, and requested later
    finished(three, minutes=10, hours_ago=10)
    second = run_make(two, examples=40)  # 20 minutes
    third = run_make(three)
    assert place_of(second, NOW) == Place(1, 2, pytest.approx(45 * 60))
    assert place_of(third, NOW) == Place(2, 2, pytest.approx(65 * 60))


@pytest.mark.django_db
def test_start_is_unknown_rather_than_guessed(projects: list[Project]) -> None:
    one, two, three = projects
    run = run_make(two)
    assert place_of(run, NOW) == Place(1, 1, None), "no worker is known"
    busy = working(one, minutes=15)
    assert place_of(run, NOW) == Place(1, 1, None), "no run of that project was measured"
    Run.objects.filter(pk=busy.pk).update(number=9)
    finished(one, minutes=10, hours_ago=10)
    assert place_of(run, NOW) == Place(1, 1, None), "the run is late"
    Run.objects.filter(pk=busy.pk).update(started_at=NOW - dt.timedelta(minutes=4))
    assert place_of(run, NOW) == Place(1, 1, pytest.approx(6 * 60))
    behind = run_make(three)
    assert place_of(behind, NOW) == Place(2, 2, None), "the run before it was never measured"


@pytest.mark.django_db
def test_run_that_does_not_wait_has_no_place(projects: list[Project], admin: User) -> None:
    run = run_make(projects[0])
    run_cancel(run=run, by=admin)
    assert place_of(run) is None


@pytest.mark.django_db
def test_pages_show_place_and_start(projects: list[Project], admin: User, as_user: As) -> None:
    one, two, _ = projects
    finished(two, minutes=10, hours_ago=30)
    working(two, minutes=4)
    run = run_make(one)
    client = as_user(admin)
    for address in (
        reverse("run", args=["one", run.number]),
        reverse("run-live", args=["one", run.number]),
        reverse("runs", args=["one"]),
    ):
        page = " ".join(client.get(address).content.decode().split())
        assert "1 of 1 waiting run · starts in about 6 minutes" in page, address
    Run.objects.filter(project=two, status=Run.Status.RUNNING).delete()
    page = " ".join(client.get(reverse("runs", args=["one"])).content.decode().split())
    assert "1 of 1 waiting run · start time unknown" in page


# -- several workers

RUNS_EACH = 10
STALE = 20


class Worker:
    """A worker process and the lines that it has printed."""

    def __init__(self, *, run_seconds: float) -> None:
        self.lines: list[list[str]] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.training.runs.worker", "240", str(run_seconds)],
            stdout=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "DJANGO_SETTINGS_MODULE": "feedback_app.config.settings",
                "DATABASE_URL": database_url(),
                "RUN_STALE_SECONDS": str(STALE),
            },
        )
        self.reader = threading.Thread(target=self.read)
        self.reader.start()

    def read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.split())

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def of(self, kind: str) -> list[str]:
        return [pk for line, pk, _ in list(self.lines) if line == kind]


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.django_db(transaction=True)
def test_three_workers_lose_no_run_and_execute_none_twice_when_one_is_killed(
    projects: list[Project],
) -> None:
    """Thirty runs of three projects, each project's next one as soon as it may be requested."""

    def request() -> bool:
        """Request what may be requested; return whether everything has ended."""
        for project in projects:
            if not project.runs.active().exists() and project.runs.count() < RUNS_EACH:
                run_make(project)
        done = Run.objects.filter(status=Run.Status.CANCELLED)
        return done.count() == RUNS_EACH * len(projects)

    # the first holds its run until it is killed
    workers = [Worker(run_seconds=3600)]
    try:
        request()
        wait_until(lambda: bool(workers[0].of("took")), what="the first worker's claim")
        workers += [Worker(run_seconds=0.05) for _ in range(2)]
        wait_until(lambda: request() or len(workers[1].of("ended")) > 3, what="some runs")
        workers[0].kill()
        wait_until(request, what="the end of all runs")
        wait_until(
            lambda: sum(len(worker.of("ended")) for worker in workers[1:]) == 30,
            what="the workers' last lines",
        )
    finally:
        for worker in workers:
            worker.kill()
    (held,) = workers[0].of("took")
    ended = Counter(pk for worker in workers for pk in worker.of("ended"))
    assert ended == Counter(str(run.pk) for run in Run.objects.all()), "lost or executed twice"
    attempts = {str(run.pk): run.attempt for run in Run.objects.all()}
    assert {pk for pk, attempt in attempts.items() if attempt != 1} == {held}
    assert attempts[held] == 2
    assert all(worker.of("ended") for worker in workers[1:]), "one worker did everything"


@pytest.mark.django_db
def test_priority_is_a_share_of_the_workers_and_keeps_nobody_waiting_for_good(
    projects: list[Project],
) -> None:
    low, normal, high = projects
    call_command("set_priority", "one", "low", stdout=StringIO())
    call_command("set_priority", "three", "high", stdout=StringIO())
    assert AuditEvent.objects.filter(project=low, action="project.priority", target="low").exists()
    runs = [
        run_make(project, created_at=NOW - dt.timedelta(minutes=at))
        for project, at in ((low, 9), (normal, 8), (high, 7))
    ]
    # nobody has had any time: the higher priority first, whoever asked first
    assert [run.project_id for run in waiting_runs(NOW)] == [high.pk, normal.pk, low.pk]

    # 60 / 4 is less than 20 / 1 and 10 / 0.25
    for project, minutes in ((high, 60), (normal, 20), (low, 10)):
        finished(project, minutes=minutes)
    assert [run.project_id for run in waiting_runs(NOW)] == [high.pk, normal.pk, low.pk]

    finished(high, minutes=180)
    assert [run.project_id for run in waiting_runs(NOW)] == [normal.pk, low.pk, high.pk]
    assert len(runs) == 3


@pytest.mark.django_db
def test_priority_of_an_unknown_project_is_refused() -> None:
    with pytest.raises(CommandError, match="no project 'nobody'"):
        call_command("set_priority", "nobody", "high")
