"""Fault 36: votes kept in the browser of a shared computer stay with the person who gave them."""

from collections.abc import Callable

import pytest
from django.test import Client
from django.urls import reverse

from feedback_app.accounts.models import User
from feedback_app.feedback.models import Project, Skip, Vote
from tests.conftest import MakeCompletions, hand_out

pytestmark = pytest.mark.django_db

As = Callable[[User], Client]


@pytest.mark.parametrize("target", ["last", "stage", "history"])
def test_vote_of_another_person_is_refused_and_not_stored(
    target: str,
    annotator: User,
    second_annotator: User,
    as_user: As,
    make_completions: MakeCompletions,
) -> None:
    [completion, _] = make_completions(2)
    hand_out(annotator, completion)
    hand_out(second_annotator, completion)
    headers = {"HX-Request": "true", "HX-Target": target, "X-Person": str(annotator.pk)}

    for name, body in (("vote", {"verdict": "up"}), ("skip", {}), ("vote-undo", {})):
        url = reverse(name, args=["bot", completion.pk])
        # the next person has signed in meanwhile
        answer = as_user(second_annotator).post(url, body, headers=headers)
        assert answer.status_code == 409
        assert "Another person is signed in" in answer.content.decode()
    assert not Vote.objects.exists()
    assert not Skip.objects.exists()

    url = reverse("vote", args=["bot", completion.pk])
    assert as_user(annotator).post(url, {"verdict": "up"}, headers=headers).status_code < 300
    assert Vote.objects.get().user == annotator


def test_page_names_the_person_for_the_outbox_and_in_every_request(
    project: Project, annotator: User, as_user: As
) -> None:
    page = as_user(annotator).get(reverse("annotate", args=["bot"])).content.decode()

    assert f'data-person="{annotator.pk}"' in page
    assert f"""hx-headers='{{"X-Person": "{annotator.pk}"}}'""" in page


def test_late_vote_that_is_refused_says_why_in_plain_text(
    annotator: User, as_user: As, make_completions: MakeCompletions
) -> None:
    [completion] = make_completions(1)
    url = reverse("vote", args=["bot", completion.pk])

    answer = as_user(annotator).post(
        url, {"verdict": "up"}, headers={"HX-Request": "true", "HX-Target": "last"}
    )

    assert answer.status_code == 404
    assert "<" not in answer.content.decode()
    assert "no longer open for you" in answer.content.decode()
