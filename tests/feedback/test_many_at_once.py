"""Eight annotators at once, on whatever database the suite runs on."""

import threading
from collections import Counter
from collections.abc import Callable

import pytest
from django.db import connection

from feedback_app.accounts.models import Role, User
from feedback_app.feedback.models import Example, Project, Source, Verdict, Vote
from feedback_app.feedback.services import member_set, vote_cast
from feedback_app.feedback.services_queue import items_hand_out
from tests.conftest import MakeCompletions

PEOPLE = 8
ITEMS = 120


def at_once(jobs: list[Callable[[], None]]) -> list[Exception]:
    """Runs the jobs in threads that start together; returns what they raised."""
    faults: list[Exception] = []
    barrier = threading.Barrier(len(jobs))

    def work(job: Callable[[], None]) -> None:
        try:
            barrier.wait(timeout=30)
            job()
        except Exception as error:
            faults.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=work, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    return faults


@pytest.mark.django_db(transaction=True)
def test_eight_annotators_at_once_share_the_queue_without_locks_or_doubles(
    project: Project, make_completions: MakeCompletions
) -> None:
    make_completions(ITEMS)
    people = [User.objects.create_user(f"p{n}@example.com", "x") for n in range(PEOPLE)]
    for user in people:
        member_set(project=project, user=user, role=Role.ANNOTATOR)

    def annotate(user: User) -> None:
        while items := items_hand_out(project=project, by=user, count=1):
            vote_cast(completion=items[0], verdict=Verdict.UP, by=user, source=Source.ANNOTATE)

    faults = at_once([lambda user=user: annotate(user) for user in people])

    assert faults == []
    votes = Counter(Vote.objects.values_list("completion_id", flat=True))
    assert len(votes) == ITEMS, "an item was starved"
    assert set(votes.values()) == {1}, "an item was handed out twice"
    assert Example.objects.count() == ITEMS


@pytest.mark.django_db(transaction=True)
def test_double_click_in_many_tabs_is_one_vote(
    annotator: User, make_completions: MakeCompletions
) -> None:
    (completion,) = make_completions(1)

    def click() -> None:
        vote_cast(completion=completion, verdict=Verdict.UP, by=annotator, source=Source.ANNOTATE)

    assert at_once([click] * PEOPLE) == []
    assert Vote.objects.count() == 1
    assert completion.vote_events.count() == 1
