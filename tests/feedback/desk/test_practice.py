"""Practice for newcomers: decided answers, and nothing stored."""

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from feedback_app.accounts.models import User
from feedback_app.feedback.adjudication.services import adjudication_request
from feedback_app.feedback.models import (
    Adjudication,
    Completion,
    Prompt,
    Source,
    Verdict,
    Vote,
    VoteEvent,
)
from feedback_app.feedback.votes.services import vote_cast
from tests.conftest import MakeCompletions

pytestmark = pytest.mark.django_db

As = Callable[[User], Client]
PAGE = reverse("practice", args=["bot"])


@pytest.fixture
def decided(admin: User, make_completions: MakeCompletions) -> list[Completion]:
    """Seven answers that an admin has decided as down, newest last, and one that waits for it."""
    *made, waiting = make_completions(8)
    for completion in made:
        Adjudication.objects.create(
            completion=completion,
            project=completion.project,
            verdict=Verdict.DOWN,
            why="It breaks off.",
            by=admin,
            resolved_at=timezone.now(),
        )
    # nobody is asked about them any more
    Completion.objects.filter(pk__in=[each.pk for each in made]).update(
        vote_count=waiting.project.overlap
    )
    adjudication_request(completion=waiting, why="?", by=admin)
    return made


def shown(client: Client) -> int | None:
    """Return the answer on the page."""
    item = client.get(PAGE).context["item"]
    return item.pk if item else None


def judge(client: Client, completion: int, verdict: str) -> str:
    answer = client.post(PAGE, {"completion": completion, "verdict": verdict})
    assert answer.status_code == 200
    return " ".join(answer.content.decode().split())


def test_round_shows_five_decided_answers_and_stores_nothing(
    decided: list[Completion], annotator: User, as_user: As
) -> None:
    client = as_user(annotator)
    seen = []
    for number in range(5):
        pk = shown(client)
        assert pk is not None
        seen.append(pk)
        page = judge(client, pk, "down" if number else "up")
        assert "It breaks off." in page
        assert ("It was decided as down" in page) == (number == 0)
        assert ("The same verdict: down" in page) == (number > 0)

    assert seen == [each.pk for each in reversed(decided[2:])]
    assert shown(client) is None
    assert "4 of 5 as decided" in client.get(PAGE).content.decode()
    assert not Vote.objects.exists() and not VoteEvent.objects.exists()
    client.post(reverse("practice-again", args=["bot"]))
    assert shown(client) == seen[0]


def test_first_verdict_of_a_round_counts(
    decided: list[Completion], annotator: User, as_user: As
) -> None:
    client = as_user(annotator)
    [*_, newest] = decided
    judge(client, newest.pk, "up")

    judge(client, newest.pk, "down")

    assert list(client.session["practice"]["given"].values()) == [False]


def test_only_decided_answers_for_annotation_are_shown(
    decided: list[Completion], annotator: User, as_user: As
) -> None:
    gold, flagged, demo, asked, voted, open_again, left = decided
    Completion.objects.filter(pk=gold.pk).update(gold=True)
    Completion.objects.filter(pk=flagged.pk).update(flagged=True)
    Completion.objects.filter(pk=demo.pk).update(source=Source.DEMO)
    Prompt.objects.filter(pk=asked.prompt_id).update(source=Source.API)
    vote_cast(completion=voted, verdict=Verdict.UP, by=annotator, source=Source.ANNOTATE)
    Adjudication.objects.filter(pk=open_again.pk).update(open=True)
    client = as_user(annotator)

    assert shown(client) == left.pk
    for other in (gold, flagged, demo, asked, voted, open_again):
        body = {"completion": other.pk, "verdict": "up"}
        assert client.post(PAGE, body).status_code == 404
    judge(client, left.pk, "down")
    assert shown(client) is None


def test_answer_that_still_waits_for_votes_is_not_shown(
    decided: list[Completion], annotator: User, as_user: As
) -> None:
    """Votes on decided answers say how reliable a person is."""
    rows = Completion.objects.filter(pk__in=[each.pk for each in decided])
    rows.update(vote_count=0)
    client = as_user(annotator)
    assert shown(client) is None
    body = {"completion": decided[0].pk, "verdict": "up"}
    assert client.post(PAGE, body).status_code == 404

    rows.update(queued=False)

    assert shown(client) == decided[-1].pk


def test_practice_is_offered_to_newcomers_only(
    decided: list[Completion],
    annotator: User,
    make_completions: MakeCompletions,
    as_user: As,
    django_assert_max_num_queries: Any,
) -> None:
    client = as_user(annotator)
    desk = reverse("annotate", args=["bot"])
    assert PAGE in client.get(desk).content.decode().split('id="stage"')[0]
    with django_assert_max_num_queries(8):
        client.get(PAGE)

    [more] = make_completions(1)
    vote_cast(completion=more, verdict=Verdict.UP, by=annotator, source=Source.ANNOTATE)

    assert PAGE not in client.get(desk).content.decode().split('id="stage"')[0]


def test_without_decided_answers_the_page_says_so(annotator: User, as_user: As) -> None:
    assert "Nothing to practise with yet" in as_user(annotator).get(PAGE).content.decode()
