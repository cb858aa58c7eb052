"""Many annotators at once, on the database that the suite runs on."""

import threading
from collections import Counter
from collections.abc import Callable

import pytest
from django.db import connection
from django.utils import timezone

from feedback_app.accounts.models import Role, User
from feedback_app.feedback.desk.selectors import empty_queue
from feedback_app.feedback.members.services import member_set
from feedback_app.feedback.models import Example, Lease, Project, Source, Verdict, Vote
from feedback_app.feedback.queue.services import items_hand_out
from feedback_app.feedback.votes.services import vote_cast
from tests.conftest import MakeCompletions
from tests.engines import PATIENCE

pytestmark = pytest.mark.slow

PEOPLE = 8
ITEMS = 120
#: People who hold items at the same time, and how many threads act for them. SQLite lets one write
#: at a time; PostgreSQL accepts 100 connections by default.
ANNOTATORS = 200 if connection.vendor == "postgresql" else 60
THREADS = 40
OVERLAP = 2


def at_once(jobs: list[Callable[[], None]]) -> list[Exception]:
    """Run the jobs in threads that start together; return the exceptions they raised."""
    faults: list[Exception] = []
    barrier = threading.Barrier(len(jobs))

    def work(job: Callable[[], None]) -> None:
        try:
            barrier.wait(timeout=PATIENCE)
            job()
        except Exception as error:
            faults.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=work, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=PATIENCE)
    return faults


@pytest.mark.django_db(transaction=True)
def test_eight_concurrent_annotators_get_each_item_once(
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
    assert len(votes) == ITEMS, "an item got no vote"
    assert set(votes.values()) == {1}, "an item was handed out twice"
    assert Example.objects.count() == ITEMS


@pytest.mark.django_db(transaction=True)
def test_double_clicks_in_many_tabs_make_one_vote(
    annotator: User, make_completions: MakeCompletions
) -> None:
    (completion,) = make_completions(1)

    def click() -> None:
        vote_cast(completion=completion, verdict=Verdict.UP, by=annotator, source=Source.ANNOTATE)

    assert at_once([click] * PEOPLE) == []
    assert Vote.objects.count() == 1
    assert completion.vote_events.count() == 1


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_crowd_fills_every_slot_once_with_abandoned_leases(
    project: Project, make_completions: MakeCompletions
) -> None:
    """Each answer needs two votes; every tenth person leases an item and never votes."""
    project.overlap = OVERLAP
    project.save()
    answers = make_completions(3 * ANNOTATORS // 5)
    people = User.objects.bulk_create(User(email=f"p{n}@example.com") for n in range(ANNOTATORS))
    gone, staying = people[::10], [user for n, user in enumerate(people) if n % 10]
    for user in gone:
        assert len(items_hand_out(project=project, by=user, count=1)) == 1
    handed: Counter[tuple[int, int]] = Counter()

    def annotate(crew: list[User]) -> None:
        """Vote for several people in turn: all of them hold an item before any of them votes."""
        waiting = {user: items_hand_out(project=project, by=user, count=1) for user in crew}
        while waiting:
            for user, items in list(waiting.items()):
                for item in items:
                    handed[item.pk, user.pk] += 1
                    vote_cast(completion=item, verdict=Verdict.UP, by=user, source=Source.ANNOTATE)
                following = items_hand_out(project=project, by=user, count=1)
                if following or open_slots(user):
                    waiting[user] = following
                else:
                    del waiting[user]

    def open_slots(user: User) -> bool:
        """Return whether this person may still get a slot that another one now holds."""
        mine = project.completions.open_for(user, overlap=OVERLAP)
        return mine.exists()

    crews = [staying[n::THREADS] for n in range(THREADS)]
    assert at_once([lambda crew=crew: annotate(crew) for crew in crews]) == []

    # all but the slots still leased to those who left
    assert Vote.objects.count() == OVERLAP * len(answers) - len(gone)
    assert max(handed.values()) == 1
    assert items_hand_out(project=project, by=staying[0]) == []
    assert empty_queue(project=project, user=staying[0]).reason in ("leased", "done")

    Lease.objects.update(expires_at=timezone.now())
    assert at_once([lambda crew=crew: annotate(crew) for crew in crews]) == []

    votes = Counter(Vote.objects.values_list("completion_id", flat=True))
    assert votes == {answer.pk: OVERLAP for answer in answers}
    assert set(project.completions.values_list("vote_count", flat=True)) == {OVERLAP}
    assert not Lease.objects.filter(user__in=staying).exists()
