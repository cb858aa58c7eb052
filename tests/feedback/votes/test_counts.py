"""A person's daily counts equal their votes, although most votes are counted only at intervals."""

import datetime as dt
import re
from collections.abc import Callable
from typing import Any

import pytest
from django.core.cache import cache
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from feedback_app.accounts.models import User
from feedback_app.feedback.desk.selectors import queue_progress
from feedback_app.feedback.models import Completion, Project, Source, Verdict, Vote
from feedback_app.feedback.votes import counts
from feedback_app.feedback.votes.counts import vote_counts
from feedback_app.feedback.votes.services import vote_cast, vote_undo
from tests.conftest import MakeCompletions

pytestmark = pytest.mark.django_db

NOON = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
At = Callable[[dt.datetime], None]


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> At:
    """Return a function that sets the current time."""
    return lambda moment: monkeypatch.setattr(timezone, "now", lambda: moment)


def minutes(number: float) -> dt.timedelta:
    return dt.timedelta(minutes=number)


def counted(project: Project, user: User) -> tuple[int, int]:
    """Return the person's votes of today and of the last hour."""
    found = vote_counts(project=project, user=user)
    return found.today, found.hour


def test_counts_rise_with_each_vote_and_fall_with_each_undo(
    project: Project, annotator: User, admin: User, make_completions: MakeCompletions, at: At
) -> None:
    answers = make_completions(6)
    # yesterday, this morning, within the hour; and one vote of another person
    moments = [NOON - minutes(60 * hours) for hours in (13, 3, 0.5)]
    for answer, moment in zip(answers, moments, strict=False):
        at(moment)
        vote_cast(completion=answer, verdict=Verdict.UP, by=annotator, source=Source.ANNOTATE)
    vote_cast(completion=answers[0], verdict=Verdict.UP, by=admin, source=Source.ANNOTATE)

    at(NOON)
    assert counted(project, annotator) == (2, 1)
    for number, answer in enumerate(answers[3:], start=1):
        at(NOON + minutes(number / 20))
        vote_cast(completion=answer, verdict=Verdict.UP, by=annotator, source=Source.ANNOTATE)
        assert counted(project, annotator) == (2 + number, 1 + number)
    # a changed vote counts once
    vote_cast(completion=answers[1], verdict=Verdict.DOWN, by=annotator, source=Source.ANNOTATE)
    assert counted(project, annotator) == (5, 4)
    vote_undo(completion=answers[2], by=annotator, source=Source.ANNOTATE)
    assert counted(project, annotator) == (4, 3)
    at(NOON + minutes(60 * 12))
    assert counted(project, annotator) == (0, 0), "a new day starts at zero"


def test_pace_is_measured_since_the_first_vote_of_the_hour(
    project: Project, annotator: User, make_completions: MakeCompletions, at: At
) -> None:
    answers = iter(make_completions(60))

    def vote(moment: dt.datetime) -> int | None:
        at(moment)
        cache.clear()  # which has a time of its own
        vote_cast(
            completion=next(answers), verdict=Verdict.UP, by=annotator, source=Source.ANNOTATE
        )
        return queue_progress(project=project, user=annotator).per_hour

    assert vote(NOON) is None, "nothing can be said after one vote"
    paces = [vote(NOON + minutes(number / 2)) for number in range(1, 21)]
    assert paces[3] is None, "nor after two minutes"
    # ten minutes, a vote each half of one
    assert paces[-1] == 120
    assert queue_progress(project=project, user=annotator).in_hour == 21
    # the next day counts for itself, and so does each hour
    assert vote(NOON + minutes(60 * 24)) is None
    paces = [vote(NOON + minutes(60 * 24 + 4 * number)) for number in range(1, 26)]
    assert paces[-1] == 15


def test_earlier_votes_are_recounted_only_after_many_new_ones(
    project: Project,
    annotator: User,
    make_completions: MakeCompletions,
    at: At,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, *later = make_completions(7)
    at(NOON - minutes(10))
    vote_cast(completion=first, verdict=Verdict.UP, by=annotator, source=Source.ANNOTATE)
    at(NOON)
    vote_counts(project=project, user=annotator)
    since: list[dt.datetime] = []
    votes_since = counts.votes_since

    def noting(*moments: dt.datetime, **options: Any) -> tuple[int, ...]:
        since.append(min(moments))
        return votes_since(*moments, **options)

    monkeypatch.setattr(counts, "votes_since", noting)
    monkeypatch.setattr(counts, "RECOUNT_AFTER", 2)

    for number, answer in enumerate(later, start=1):
        at(NOON + minutes(number / 20))
        vote_cast(completion=answer, verdict=Verdict.UP, by=annotator, source=Source.ANNOTATE)
        assert counted(project, annotator) == (1 + number, 1 + number)

    earlier = [moment < NOON - minutes(1) for moment in since]
    assert earlier == [False, False, False, True, False, False]
    assert Vote.objects.count() == 7


def test_desk_shows_counts_including_the_vote_just_cast(
    annotator: User, as_user: Callable[[User], Client], make_completions: MakeCompletions
) -> None:
    answers = make_completions(5)
    client = as_user(annotator)
    client.get(reverse("annotate", args=["bot"]))

    def shown(answer: Completion, verdict: str) -> str:
        url = reverse("vote", args=["bot", answer.pk])
        stage = {"HX-Request": "true", "HX-Target": "stage"}
        found = re.search(
            r"<strong>(\d+)</strong> of (\d+) today",
            client.post(url, {"verdict": verdict}, headers=stage).content.decode(),
        )
        return "/".join(found.groups()) if found else ""

    assert [shown(answer, "up") for answer in answers[:4]] == ["1/5", "2/5", "3/5", "4/5"]
    assert shown(answers[0], "down") == "4/5", "a changed vote counts once"
