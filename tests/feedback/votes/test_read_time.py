"""Votes cast faster than the answer can be read are marked hasty, and kept."""

import datetime as dt
from collections.abc import Callable

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from feedback_app.accounts.models import User
from feedback_app.feedback.models import Completion, Example, Lease, Project, Source, Verdict, Vote
from feedback_app.feedback.queue.services import items_hand_out
from feedback_app.feedback.votes.services import vote_cast, vote_undo
from tests.conftest import MakeCompletions

pytestmark = pytest.mark.django_db

As = Callable[[User], Client]


@pytest.fixture
def long(make_completions: MakeCompletions) -> list[Completion]:
    """Answers that take ten seconds to read."""
    rows = make_completions(4)
    Completion.objects.update(text="word " * 150)
    return rows


def shown(seconds: float) -> None:
    """Set how long ago the leased items were handed out."""
    Lease.objects.update(taken_at=timezone.now() - dt.timedelta(seconds=seconds))


def cast(completion: Completion, by: User, source: Source = Source.ANNOTATE) -> Vote:
    return vote_cast(completion=completion, verdict=Verdict.UP, by=by, source=source)


@pytest.mark.parametrize(("seconds", "hasty"), [(1, True), (9, True), (11, False)])
def test_vote_is_hasty_if_the_answer_cannot_have_been_read(
    seconds: float, hasty: bool, project: Project, annotator: User, long: list[Completion]
) -> None:
    items_hand_out(project=project, by=annotator)
    shown(seconds)

    assert cast(long[0], annotator).hasty is hasty
    assert Example.objects.count() == 1


def test_read_time_of_the_next_item_starts_at_the_previous_vote(
    project: Project, annotator: User, as_user: As, admin: User, long: list[Completion]
) -> None:
    client = as_user(annotator)
    client.get(reverse("annotate", args=["bot"]))
    shown(60)  # both were handed out a minute ago; the second was displayed only now
    for completion in long[:2]:
        client.post(
            reverse("vote", args=["bot", completion.pk]),
            {"verdict": "up"},
            headers={"HX-Request": "true", "HX-Target": "stage"},
        )

    marks = dict(Vote.objects.values_list("completion", "hasty"))
    assert marks == {long[0].pk: False, long[1].pk: True}
    page = as_user(admin).get(reverse("examples", args=["bot"])).content.decode()
    assert page.count("hasty</span>") == 1


def test_votes_sent_late_together_are_not_hasty(
    project: Project, annotator: User, long: list[Completion]
) -> None:
    items_hand_out(project=project, by=annotator)
    shown(60)  # the browser was offline and sends both votes now

    assert [cast(completion, annotator).hasty for completion in long[:2]] == [False, False]


def test_votes_on_items_read_before_or_elsewhere_are_not_hasty(
    project: Project, annotator: User, long: list[Completion]
) -> None:
    first = items_hand_out(project=project, by=annotator)[0]
    shown(60)
    cast(first, annotator)
    vote_undo(completion=first, by=annotator, source=Source.ANNOTATE)

    assert not cast(first, annotator).hasty, "it was shown again by undo"
    assert not cast(long[3], annotator).hasty, "the person holds no lease on it"
    items_hand_out(project=project, by=annotator)
    assert not cast(long[1], annotator, Source.DEMO).hasty
