"""A paused person votes nowhere: not on the annotation page, in the demo or in a comparison."""

from collections.abc import Callable

import pytest
from django.test import Client
from django.urls import reverse

from feedback_app.accounts.models import User
from feedback_app.feedback.models import Pause, Project, Vote
from feedback_app.serving.models import Comparison
from tests.browser.world import chat, said

pytestmark = pytest.mark.django_db

As = Callable[[User], Client]
HTMX = {"HX-Request": "true"}


@pytest.fixture
def paused(project: Project, annotator: User) -> User:
    Pause.objects.create(project=project, user=annotator, right=1, of=3)
    return annotator


def test_demo_vote_and_undo_of_a_paused_person_are_refused_with_the_reason(
    project: Project, paused: User, as_user: As
) -> None:
    turns = chat(project, paused, version="base").turns
    first, second = (turns.filter(position=position).first() for position in (0, 1))
    kept = Vote.objects.get()
    assert kept.completion == second.completion
    client = as_user(paused)

    for name, completion in (
        ("demo-vote", first.completion),
        ("demo-vote", second.completion),
        ("demo-undo", second.completion),
        ("own-vote-change", second.completion),
    ):
        assert completion is not None
        address = reverse(name, args=["bot", completion.pk])
        body = {} if name == "demo-undo" else {"verdict": "up"}
        assert b"You are paused" in client.post(address, body).content
        answer = client.post(address, body, headers=HTMX)
        assert (answer.status_code, "You are paused" in answer["HX-Trigger"]) == (422, True)

    assert list(Vote.objects.values_list("pk", "verdict")) == [(kept.pk, kept.verdict)]


def test_comparison_of_a_paused_person_is_not_judged(
    project: Project, paused: User, as_user: As
) -> None:
    comparison = Comparison.objects.create(
        project=project,
        user=paused,
        question="Which?",
        left_version="base",
        right_version="bot@1",
        left=said(project, "Which?", "This.", version="base"),
        right=said(project, "Which?", "That.", version="bot@1"),
    )
    client = as_user(paused)

    judged = client.post(
        reverse("comparison-judge", args=["bot", comparison.pk]), {"choice": "left"}, follow=True
    )

    assert b"You are paused" in judged.content
    comparison.refresh_from_db()
    assert (comparison.choice, Vote.objects.count()) == ("", 0)
    Comparison.objects.update(choice="left")
    client.post(reverse("comparison-withdraw", args=["bot", comparison.pk]))
    comparison.refresh_from_db()
    assert comparison.choice == "left"
