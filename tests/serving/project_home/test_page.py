"""The first page of a project."""

import datetime as dt
from collections.abc import Callable

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django.fixtures import DjangoAssertNumQueries

from feedback_app.accounts.models import User
from feedback_app.feedback.models import Completion, Project, Source, Verdict
from feedback_app.feedback.queue.services import item_skip
from feedback_app.feedback.votes.services import vote_cast
from feedback_app.serving.models import TrafficSplit
from feedback_app.serving.project_home.history import DAYS
from feedback_app.training.models import Adapter, GateOutcome, Run
from feedback_app.training.runs.services import run_request
from feedback_app.training.schedules.selectors import next_run
from feedback_app.training.schedules.services import schedule_due, schedule_set
from tests.conftest import MakeCompletions
from tests.serving.project_home.test_history import released

pytestmark = pytest.mark.django_db

As = Callable[[User], Client]
QUERIES = 45


def page_of(project: Project, client: Client) -> str:
    return client.get(reverse("project-home", args=[project.slug])).content.decode()


def test_admin_with_one_project_lands_on_its_home(
    project: Project, admin: User, as_user: As
) -> None:
    answer = as_user(admin).get("/")
    assert answer["Location"] == reverse("project-home", args=[project.slug])


def test_new_project_shows_the_first_steps(project: Project, admin: User, as_user: As) -> None:
    page = page_of(project, as_user(admin))
    assert "First steps" in page
    assert page.count("done</span>") == 0
    assert "plotted here once there are votes" in page


def test_steps_are_marked_as_they_are_done_and_go_after_the_first_release(
    voted_project: Project, admin: User, as_user: As
) -> None:
    client = as_user(admin)
    # prompts, answers, an annotator and votes
    assert page_of(voted_project, client).count("done</span>") == 4
    released(voted_project, 1, days_ago=1)
    assert "First steps" not in page_of(voted_project, client)


def test_page_lists_what_waits_for_whom(
    voted_project: Project,
    admin: User,
    annotator: User,
    make_completions: MakeCompletions,
    as_user: As,
) -> None:
    client = as_user(admin)
    assert "Nothing waits for admins." in page_of(voted_project, client)
    assert "Nothing waits for annotators." in page_of(voted_project, client)

    flagged, contested, _ = make_completions(3)
    item_skip(completion=flagged, by=annotator, flag=True, reason="Rude.")
    Completion.objects.filter(pk=contested.pk).update(
        contested=True, vote_count=voted_project.overlap
    )
    version = released(voted_project, 3, days_ago=9, until=8)
    version.releases.all().delete()
    Adapter.objects.filter(pk=version.pk).update(gate_outcome=GateOutcome.PASSED)

    page = page_of(voted_project, client)
    assert "1 flagged answer to look at" in page
    assert "1 disagreement to decide" in page
    assert f"{version.name} passed the gate and is not released" in page
    assert "1 answer without a vote" in page


def test_version_that_failed_was_live_or_is_older_does_not_wait(
    voted_project: Project, admin: User, as_user: As
) -> None:
    older = released(voted_project, 1, days_ago=9, until=8)
    older.releases.all().delete()
    Adapter.objects.filter(pk=older.pk).update(gate_outcome=GateOutcome.PASSED)
    live = released(voted_project, 2, days_ago=3)
    Project.objects.filter(pk=voted_project.pk).update(live_version=live.name)
    failed = released(voted_project, 3, days_ago=2, until=1)
    failed.releases.all().delete()
    Adapter.objects.filter(pk=failed.pk).update(gate_outcome=GateOutcome.FAILED)
    past = released(voted_project, 4, days_ago=2, until=1)
    Adapter.objects.filter(pk=past.pk).update(gate_outcome=GateOutcome.PASSED)

    assert "is not released" not in page_of(voted_project, as_user(admin))


def test_running_split_is_named(voted_project: Project, admin: User, as_user: As) -> None:
    client = as_user(admin)
    assert "of the traffic" not in page_of(voted_project, client)
    version = released(voted_project, 1, days_ago=3, until=1)
    TrafficSplit.objects.create(
        project=voted_project, candidate=version, live_version="base", percent=20
    )
    page = " ".join(page_of(voted_project, client).split())
    assert f"{version.name} answers 20 % of the traffic" in page


def test_failed_run_is_named_first(voted_project: Project, admin: User, as_user: As) -> None:
    run = run_request(project=voted_project, by=admin)
    Run.objects.filter(pk=run.pk).update(status=Run.Status.FAILED, error="Out of disk.")
    page = page_of(voted_project, as_user(admin))
    assert "Run 1 failed" in page
    assert "Needs attention:" in page


def test_page_says_when_the_next_run_starts(
    voted_project: Project, admin: User, as_user: As
) -> None:
    client = as_user(admin)
    assert "schedule</a> is off" in page_of(voted_project, client)

    def set_schedule(**values: float) -> None:
        schedule_set(
            project=voted_project,
            by=admin,
            enabled=True,
            auto_release=False,
            **{"min_new_examples": 100, "min_hours": 0.0, **values},  # type: ignore[arg-type]
        )

    set_schedule()
    assert "After 40 more examples" in page_of(voted_project, client)
    set_schedule(min_new_examples=60)
    assert "In a few seconds" in page_of(voted_project, client)
    run_request(project=voted_project, by=admin)
    assert "waiting" in page_of(voted_project, client)


def test_next_run_follows_the_rules_of_the_schedule(voted_project: Project, admin: User) -> None:
    schedule = schedule_set(
        project=voted_project,
        by=admin,
        enabled=True,
        min_new_examples=60,
        min_hours=2,
        auto_release=False,
    )
    assert next_run(voted_project).due
    assert schedule_due(schedule=schedule)

    run = run_request(project=voted_project, by=admin)
    assert not next_run(voted_project).due

    run.status = Run.Status.SUCCEEDED
    run.save(update_fields=["status"])
    voted_project.examples.update(created_at=timezone.now() + dt.timedelta(minutes=1))
    waits = next_run(voted_project)
    assert waits.missing == 0
    assert waits.earliest == run.created_at + dt.timedelta(hours=2)
    assert not waits.due
    later = timezone.now() + dt.timedelta(hours=3)
    assert next_run(voted_project, now=later).due
    assert schedule_due(schedule=schedule, now=later)


def test_refused_run_says_why(
    project: Project, admin: User, make_completions: MakeCompletions, as_user: As
) -> None:
    for completion in make_completions(8):
        vote_cast(completion=completion, verdict=Verdict.UP, by=admin, source=Source.ANNOTATE)
    schedule_set(
        project=project,
        by=admin,
        enabled=True,
        min_new_examples=5,
        min_hours=0,
        auto_release=False,
    )
    assert "KTO needs at least" in page_of(project, as_user(admin))


def test_plots_can_be_downloaded(voted_project: Project, admin: User, as_user: As) -> None:
    client, today = as_user(admin), timezone.now().date().isoformat()

    def table(name: str) -> str:
        answer = client.get(reverse("history-csv", args=[voted_project.slug, name]))
        assert answer["Content-Type"].startswith("text/csv")
        return answer.content.decode()

    assert table("votes") == f'"day","ups","downs"\r\n"{today}","20","40"\r\n'
    assert table("agreement") == '"day","agreeing_pairs","pairs"\r\n'
    version = released(voted_project, 1, days_ago=DAYS + 1)
    voted_project.completions.update(version=version.name)
    assert table("rates") == (
        f'"day","version","ups","votes"\r\n"{today}","{version.name}","20","60"\r\n'
    )
    missing = client.get(reverse("history-csv", args=[voted_project.slug, "other"]))
    assert missing.status_code == 404


def test_page_needs_as_many_queries_for_more_rows(
    voted_project: Project,
    admin: User,
    make_completions: MakeCompletions,
    as_user: As,
    django_assert_max_num_queries: DjangoAssertNumQueries,
) -> None:
    for number in range(1, 9):
        released(voted_project, number, days_ago=20 - number, until=19 - number)
    make_completions(30)
    client = as_user(admin)
    with django_assert_max_num_queries(QUERIES):
        page_of(voted_project, client)
