"""A person's own votes: beyond the last ten, searched and changed."""

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from feedback_app.accounts.models import User
from feedback_app.feedback.models import Completion, Prompt, Source, Verdict, Vote
from feedback_app.feedback.votes.services import vote_cast
from tests.conftest import MakeCompletions, hand_out

pytestmark = pytest.mark.django_db

As = Callable[[User], Client]
PAGE = reverse("own-votes", args=["bot"])


def voted(completions: list[Completion], by: User, verdict: Verdict = Verdict.UP) -> None:
    for completion in completions:
        vote_cast(completion=completion, verdict=verdict, by=by, source=Source.ANNOTATE)


def text_of(client: Client, query: str = "") -> str:
    return client.get(PAGE + query).content.decode()


def change_url(completion: Completion) -> str:
    return reverse("own-vote-change", args=["bot", completion.pk])


def test_all_own_votes_are_listed_with_their_answers(
    annotator: User,
    second_annotator: User,
    make_completions: MakeCompletions,
    as_user: As,
    django_assert_max_num_queries: Any,
) -> None:
    mine, theirs = make_completions(30), make_completions(1)
    for number, completion in enumerate(mine):
        Completion.objects.filter(pk=completion.pk).update(text=f"Mine, {number}. <b>x</b>")
    Completion.objects.filter(pk=theirs[0].pk).update(text="Of somebody else")
    voted(mine, annotator)
    voted(theirs, second_annotator)
    client = as_user(annotator)

    with django_assert_max_num_queries(9):
        first = text_of(client)
    second = text_of(client, "?page=2")

    assert "30 votes" in first
    assert "Mine, 29." in first and "Mine, 5." in first and "Mine, 4." not in first
    assert "Mine, 4." in second and "Mine, 0." in second
    assert "Of somebody else" not in first + second
    assert "<b>x</b>" not in first


def test_votes_are_found_by_question_answer_and_verdict(
    annotator: User, make_completions: MakeCompletions, as_user: As
) -> None:
    bread, rice, tea = make_completions(3)
    Prompt.objects.filter(pk=bread.prompt_id).update(
        messages=[{"role": "user", "content": "How do I bake Bread?"}]
    )
    Completion.objects.filter(pk=rice.pk).update(text="As for BREAD: buy it.")
    voted([bread, tea], annotator)
    voted([rice], annotator, Verdict.DOWN)
    client = as_user(annotator)

    def found(query: str) -> set[int]:
        page = client.get(PAGE + query).context["page"]
        return {vote.completion_id for vote in page}

    assert found("?text=bread") == {bread.pk, rice.pk}
    assert found("?text=bread&verdict=down") == {rice.pk}
    assert found("?verdict=up") == {bread.pk, tea.pk}
    assert "No votes match" in text_of(client, "?text=%25")
    assert client.get(PAGE + "?verdict=x").status_code == 400
    assert client.get(PAGE + "?person=1").status_code == 400


def test_vote_is_changed_and_the_list_keeps_its_state(
    annotator: User, make_completions: MakeCompletions, as_user: As
) -> None:
    [completion] = make_completions(1)
    voted([completion], annotator)
    client = as_user(annotator)

    body = {"verdict": "down", "back": "text=a&page=2"}
    answer = client.post(change_url(completion), body)

    assert answer["Location"] == f"{PAGE}?text=a&page=2"
    assert Vote.objects.get().verdict == "down"
    assert completion.vote_events.count() == 2
    completion.example.refresh_from_db()
    assert not completion.example.desirable


def test_only_own_votes_can_be_changed(
    annotator: User, second_annotator: User, make_completions: MakeCompletions, as_user: As
) -> None:
    theirs, held = make_completions(2)
    voted([theirs], second_annotator)
    hand_out(annotator, held)
    client = as_user(annotator)

    for completion in (theirs, held):
        assert client.post(change_url(completion), {"verdict": "down"}).status_code == 404
    body = {"verdict": "down", "weight": "9"}
    assert as_user(second_annotator).post(change_url(theirs), body).status_code == 400
    assert Vote.objects.get().verdict == "up"
