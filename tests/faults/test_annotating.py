"""Faults 15 and 17: repeated clicks, several tabs and people at once, and changed votes."""

from collections.abc import Callable

import pytest
from django.test import Client
from django.urls import reverse

from feedback_app.accounts.models import User
from feedback_app.feedback.models import (
    Completion,
    Example,
    Lease,
    Project,
    Source,
    Verdict,
    Vote,
    VoteEvent,
)
from feedback_app.feedback.votes.services import vote_cast
from tests.conftest import MakeCompletions, hand_out
from tests.feedback.queue.test_concurrency import at_once

pytestmark = pytest.mark.slow

As = Callable[[User], Client]
DESK = {"HX-Request": "true", "HX-Target": "stage"}


def url(name: str, completion: Completion) -> str:
    return reverse(name, args=["bot", completion.pk])


def shown(page: bytes) -> int | None:
    """Return the completion on the stage, not the prefetched one."""
    stage = page.decode().split("<template")[0]
    found = stage.partition('data-completion="')[2].partition('"')[0]
    return int(found) if found else None


# -- 15


@pytest.mark.django_db(transaction=True)
def test_ten_concurrent_clicks_make_one_vote_and_all_get_a_response(
    annotator: User, as_user: As, make_completions: MakeCompletions
) -> None:
    first, second, _ = make_completions(3)
    hand_out(annotator, first)
    clients = [as_user(annotator) for _ in range(10)]
    answers: list[tuple[int, int | None]] = []

    def click(client: Client) -> None:
        answer = client.post(url("vote", first), {"verdict": "up"}, headers=DESK)
        answers.append((answer.status_code, shown(answer.content)))

    assert at_once([lambda client=client: click(client) for client in clients]) == []

    assert answers == [(200, second.pk)] * 10
    assert (Vote.objects.count(), VoteEvent.objects.count(), Example.objects.count()) == (1, 1, 1)


@pytest.mark.django_db(transaction=True)
def test_two_tabs_that_disagree_leave_one_vote_and_a_matching_example(
    annotator: User, as_user: As, make_completions: MakeCompletions
) -> None:
    [completion, _] = make_completions(2)
    hand_out(annotator, completion)
    tabs = [(as_user(annotator), verdict) for verdict in ("up", "down") * 4]

    def vote(client: Client, verdict: str) -> None:
        client.post(url("vote", completion), {"verdict": verdict}, headers=DESK)

    assert at_once([lambda tab=tab: vote(*tab) for tab in tabs]) == []

    vote_ = Vote.objects.get()
    assert Example.objects.get().desirable == (vote_.verdict == "up")
    assert VoteEvent.objects.order_by("-pk")[0].verdict == vote_.verdict
    completion.refresh_from_db()
    assert completion.vote_count == 1


@pytest.mark.django_db(transaction=True)
def test_two_tabs_of_one_person_share_one_item_and_lease(
    project: Project, annotator: User, as_user: As, make_completions: MakeCompletions
) -> None:
    first, *_ = make_completions(5)
    desk = reverse("annotate", args=[project.slug])
    pages: list[int | None] = []

    def open_tab() -> None:
        pages.append(shown(as_user(annotator).get(desk).content))

    assert at_once([open_tab] * 4) == []

    assert as_user(annotator).get(desk).status_code == 200
    # tabs opened at the same moment may get different items, but no item is leased twice
    held = list(Lease.objects.values_list("completion_id", flat=True))
    assert len(held) == len(set(held))
    assert shown(as_user(annotator).get(desk).content) in held
    assert first.pk in held


# -- 17


@pytest.mark.django_db
def test_example_is_updated_by_change_undo_new_vote_and_deletion(
    project: Project,
    annotator: User,
    second_annotator: User,
    as_user: As,
    make_completions: MakeCompletions,
) -> None:
    [completion, other] = make_completions(2)
    hand_out(annotator, completion, other)
    client = as_user(annotator)

    def example() -> tuple[bool, float] | None:
        row = Example.objects.filter(completion=completion).first()
        return row and (row.desirable, row.weight)

    def step(name: str, **body: str) -> None:
        answer = client.post(url(name, completion), body, headers=DESK)
        assert answer.status_code == 200

    step("vote", verdict="up")
    assert example() == (True, 1.0)
    step("vote", verdict="down")
    assert example() == (False, 1.0)
    step("vote-undo")
    assert example() is None
    step("vote-undo")
    assert example() is None
    step("vote", verdict="down")
    assert example() == (False, 1.0)
    # a tie, and undone
    vote_cast(
        completion=completion, verdict=Verdict.UP, by=second_annotator, source=Source.ANNOTATE
    )
    assert example() is None
    step("vote", verdict="up")
    assert example() == (True, 1.0)
    assert list(VoteEvent.objects.order_by("pk").values_list("verdict", flat=True)) == [
        *("up", "down", "", "down", "up", "up")
    ]

    completion.delete()

    assert not Example.objects.exists()
    assert not Vote.objects.exists()
    assert not VoteEvent.objects.exists()
    assert not Lease.objects.filter(completion_id=completion.pk).exists()
    # a vote from a tab that still shows the item, and one on the remaining item
    gone = client.post(reverse("vote", args=["bot", 10**9]), {"verdict": "up"}, headers=DESK)
    assert gone.status_code == 404
    answer = client.post(url("vote", other), {"verdict": "up"}, headers=DESK)
    assert answer.status_code == 200
