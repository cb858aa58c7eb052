"""Fault 26: the rate limit of the project applies to every way of voting."""

import datetime as dt
import time
from collections.abc import Callable

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from feedback_app.accounts.models import User
from feedback_app.feedback.models import Completion, Project, Source, Verdict, Vote, VoteEvent
from feedback_app.feedback.votes.services import vote_cast
from feedback_app.web.errors import RateLimited
from tests.conftest import MakeCompletions, hand_out

pytestmark = pytest.mark.django_db

As = Callable[[User], Client]
DESK = {"HX-Request": "true", "HX-Target": "stage"}
OUTBOX = {"HX-Request": "true", "HX-Target": "last"}


@pytest.fixture
def answers(
    project: Project, annotator: User, make_completions: MakeCompletions
) -> list[Completion]:
    """Six answers that were handed out."""
    Project.objects.filter(pk=project.pk).update(votes_per_hour=3)
    found = make_completions(6)
    hand_out(annotator, *found)
    return found


def url(completion: Completion) -> str:
    return reverse("vote", args=["bot", completion.pk])


def test_vote_above_the_hourly_limit_gets_429_and_a_message(
    answers: list[Completion], annotator: User, second_annotator: User, as_user: As
) -> None:
    client = as_user(annotator)
    statuses = [client.post(url(a), {"verdict": "up"}, headers=DESK).status_code for a in answers]

    assert statuses == [200, 200, 200, 429, 429, 429]
    refused = client.post(url(answers[3]), {"verdict": "up"}, headers=OUTBOX)
    assert refused.status_code == 429, "the limit also holds for stored votes"
    assert "limit of 3 votes per hour" in refused.content.decode()
    assert "HX-Trigger" not in client.post(url(answers[3]), {"verdict": "up"}, headers=DESK)
    # changed verdicts and reasons do not count, and other people are not affected
    again = client.post(url(answers[2]), {"verdict": "down"}, headers=DESK)
    reasons = {"verdict": "down", "reasons": ["long"]}
    chips = client.post(url(answers[2]), reasons, headers=OUTBOX)
    hand_out(second_annotator, answers[3])
    theirs = as_user(second_annotator).post(url(answers[3]), {"verdict": "up"}, headers=DESK)
    assert (again.status_code, chips.status_code, theirs.status_code) == (200, 204, 200)
    assert Vote.objects.filter(user=annotator).count() == 3


def test_limit_applies_to_votes_that_are_sent_without_asking_for_the_next_item(
    answers: list[Completion], annotator: User, as_user: As
) -> None:
    client = as_user(annotator)
    statuses = [client.post(url(a), {"verdict": "up"}, headers=OUTBOX).status_code for a in answers]

    assert statuses == [204, 204, 204, 429, 429, 429]
    at_desk = client.post(url(answers[3]), {"verdict": "up"}, headers=DESK)
    assert at_desk.status_code == 429, "the next vote at the item is checked as well"


def test_limit_holds_for_the_whole_hour(
    answers: list[Completion],
    annotator: User,
    as_user: As,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = as_user(annotator)
    for answer in answers[:3]:
        client.post(url(answer), {"verdict": "up"}, headers=DESK)

    late = time.time() + 55 * 60  # entries of the cache expire by this clock
    monkeypatch.setattr(time, "time", lambda: late)
    assert client.post(url(answers[3]), {"verdict": "up"}, headers=DESK).status_code == 429


def test_vote_is_accepted_again_after_an_hour(
    answers: list[Completion], annotator: User, as_user: As
) -> None:
    client = as_user(annotator)
    for answer in answers[:4]:
        client.post(url(answer), {"verdict": "up"}, headers=DESK)
    past = timezone.now() - dt.timedelta(hours=1, seconds=1)
    Vote.objects.update(created_at=past, updated_at=past)

    assert client.post(url(answers[3]), {"verdict": "up"}, headers=DESK).status_code == 200


def test_votes_cast_and_undone_repeatedly_count_towards_the_limit(
    answers: list[Completion], annotator: User, second_annotator: User, as_user: As
) -> None:
    client, again = as_user(annotator), answers[0]
    undo = reverse("vote-undo", args=["bot", again.pk])

    statuses = []
    for _ in range(6):
        statuses.append(client.post(url(again), {"verdict": "up"}, headers=DESK).status_code)
        client.post(undo, headers=DESK)

    assert statuses == [200, 200, 200, 429, 429, 429]
    assert VoteEvent.objects.count() == 6, "three verdicts, each undone once"
    refused = client.post(url(answers[1]), {"verdict": "up"}, headers=DESK)
    assert "limit of 3 votes per hour" in refused.content.decode()
    with pytest.raises(RateLimited):
        again.project.refresh_from_db()
        vote_cast(completion=again, verdict=Verdict.UP, by=annotator, source=Source.API)
    hand_out(second_annotator, again)
    theirs = as_user(second_annotator).post(url(again), {"verdict": "up"}, headers=DESK)
    assert theirs.status_code == 200
    VoteEvent.objects.update(created_at=timezone.now() - dt.timedelta(hours=1, seconds=1))
    assert client.post(url(answers[1]), {"verdict": "up"}, headers=DESK).status_code == 200


def test_limit_applies_to_demo_and_api_but_not_to_imports(
    answers: list[Completion], annotator: User
) -> None:
    for answer in answers[:3]:
        answer.project.refresh_from_db()
        vote_cast(completion=answer, verdict=Verdict.UP, by=annotator, source=Source.API)
    fourth, fifth = answers[3:5]
    fourth.project.refresh_from_db()

    with pytest.raises(RateLimited):
        vote_cast(completion=fourth, verdict=Verdict.UP, by=annotator, source=Source.DEMO)
    vote_cast(completion=fifth, verdict=Verdict.UP, by=annotator, source=Source.IMPORT)
    Project.objects.update(votes_per_hour=0)
    fourth.project.refresh_from_db()
    vote_cast(completion=fourth, verdict=Verdict.UP, by=annotator, source=Source.DEMO)

    assert Vote.objects.count() == 5
