"""Adjudication: an admin resolves disagreements and answers sent back, and can undo it."""

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from feedback_app.accounts.models import AuditEvent, User
from feedback_app.feedback.adjudication.selectors import asked, contested, waiting
from feedback_app.feedback.adjudication.services import (
    adjudication_decide,
    adjudication_request,
    adjudication_undo,
    adjudication_withdraw,
)
from feedback_app.feedback.gold.services import gold_mark, gold_unmark
from feedback_app.feedback.models import (
    Adjudication,
    Completion,
    Example,
    Project,
    Source,
    Verdict,
    Vote,
)
from feedback_app.feedback.votes.services import vote_cast, vote_undo
from feedback_app.web.errors import UserError
from tests.conftest import MakeCompletions

pytestmark = pytest.mark.django_db

As = Callable[[User], Client]


def url(name: str, *args: Any) -> str:
    return reverse(name, args=["bot", *args])


def cast(completion: Completion, by: User, verdict: str, **extra: Any) -> Vote:
    source = Source.ANNOTATE
    return vote_cast(completion=completion, verdict=Verdict(verdict), by=by, source=source, **extra)


@pytest.fixture
def disputed(
    project: Project,
    annotator: User,
    second_annotator: User,
    make_completions: MakeCompletions,
) -> Completion:
    """Overlap 2: one answer with an up and a down vote, one with one vote, one with two down."""
    project.overlap = 2
    project.save()
    disputed, half, alike = make_completions(3)
    cast(disputed, annotator, "up", comment="Kind <b>enough</b>.")
    cast(disputed, second_annotator, "down", reasons=["wrong"])
    cast(half, annotator, "up")
    for person in (annotator, second_annotator):
        cast(alike, person, "down")
    return disputed


def example(completion: Completion) -> tuple[bool, float] | None:
    found = Example.objects.filter(completion=completion).first()
    return (found.desirable, found.weight) if found else None


def test_disagreement_is_listed_when_all_votes_are_in(
    project: Project, disputed: Completion, admin: User
) -> None:
    assert list(contested(project)) == [disputed]
    project.overlap = 3
    assert list(contested(project)) == [], "a third vote can still settle it"
    Completion.objects.filter(pk=disputed.pk).update(queued=False)
    assert list(contested(project)) == [disputed], "no more votes can come: it is not queued"


def test_resolved_verdict_sets_the_example_until_undone(
    project: Project, disputed: Completion, admin: User, annotator: User, as_user: As
) -> None:
    client = as_user(admin)
    page = client.get(url("resolve")).content.decode()
    for said in ("Ann Otator", "Bob", "Kind &lt;b&gt;enough&lt;/b&gt;.", "Wrong fact", "Tie"):
        assert said in page

    client.post(
        url("resolve-decide", disputed.pk), {"verdict": "down", "why": "False."}, follow=True
    )

    assert example(disputed) == (False, 1)
    assert waiting(project).total == 0
    # later votes do not change the resolved verdict
    cast(disputed, admin, "up")
    vote_undo(completion=disputed, by=annotator, source=Source.ANNOTATE)
    assert example(disputed) == (False, 1)
    cast(disputed, annotator, "up")
    decided = client.get(url("resolve"), {"show": "resolved"}).content.decode()
    assert "Ada Admin: False." in decided
    assert b"Disagreements" in client.get(url("quality")).content

    client.post(url("resolve-undo", disputed.pk))
    assert example(disputed) == (True, pytest.approx(1 / 3))
    assert not Adjudication.objects.exists()
    assert list(contested(project)) == [disputed]
    assert not adjudication_undo(completion=disputed, by=admin)
    actions = AuditEvent.objects.filter(action__startswith="resolution")
    assert list(actions.values_list("action", flat=True)) == [
        "resolution.decide",
        "resolution.undo",
    ]


def test_answer_sent_back_keeps_its_example_and_each_step_can_be_undone(
    project: Project, disputed: Completion, admin: User
) -> None:
    alike = Completion.objects.get(vote_count=2, contested=False)
    adjudication_request(completion=alike, why="It fits badly in run 3.", by=admin)
    assert list(asked(project)) == [alike]
    assert example(alike) == (False, 1)

    assert adjudication_withdraw(completion=alike, by=admin)
    assert not adjudication_withdraw(completion=alike, by=admin)
    assert not Adjudication.objects.exists()

    adjudication_request(completion=alike, why="It fits badly in run 3.", by=admin)
    adjudication_decide(completion=alike, verdict=Verdict.UP, why="", by=admin)
    assert (example(alike), waiting(project).asked) == ((True, 1), 0)
    # requested again: the verdict remains until another is given or it is undone
    adjudication_request(completion=alike, why="Run 4, too.", by=admin)
    assert (example(alike), waiting(project).asked) == ((True, 1), 1)
    assert adjudication_withdraw(completion=alike, by=admin)
    assert example(alike) == (True, 1)
    adjudication_undo(completion=alike, by=admin)
    assert (example(alike), list(asked(project))) == ((False, 1), [alike])


def test_disagreement_sent_back_is_listed_once(
    project: Project, disputed: Completion, admin: User
) -> None:
    adjudication_request(completion=disputed, why="Look.", by=admin)

    assert (waiting(project).contested, waiting(project).asked) == (0, 1)


def test_gold_item_is_not_resolved_and_unmarking_restores_the_decision(
    project: Project, disputed: Completion, admin: User
) -> None:
    adjudication_decide(completion=disputed, verdict=Verdict.DOWN, why="", by=admin)
    item = gold_mark(completion=disputed, verdict=Verdict.UP, why="", by=admin)
    assert example(disputed) == (True, 1)
    with pytest.raises(UserError, match="gold"):
        adjudication_decide(completion=disputed, verdict=Verdict.DOWN, why="", by=admin)

    gold_unmark(item=item, by=admin)

    assert example(disputed) == (False, 1)


def test_resolve_page_is_paginated_takes_few_queries_and_is_for_admins(
    project: Project,
    disputed: Completion,
    admin: User,
    annotator: User,
    second_annotator: User,
    outsider: User,
    as_user: As,
    make_completions: MakeCompletions,
    django_assert_max_num_queries: Any,
) -> None:
    for completion in make_completions(12):
        cast(completion, annotator, "up")
        cast(completion, second_annotator, "down")
    client = as_user(admin)

    with django_assert_max_num_queries(9):
        page = client.get(url("resolve")).content.decode()

    assert "?show=contested&amp;page=2" in page
    body = {"verdict": "up"}
    assert (
        client.post(url("resolve-decide", disputed.pk), body | {"weight": "2"}).status_code == 400
    )
    assert example(disputed) is None
    assert as_user(annotator).post(url("resolve-decide", disputed.pk), body).status_code == 403
    assert as_user(outsider).post(url("resolve-decide", disputed.pk), body).status_code == 404
    foreign = reverse("resolve-decide", args=["other", disputed.pk])
    assert as_user(outsider).post(foreign, body).status_code == 404
    assert client.get(url("resolve"), {"show": "all"}).status_code == 400
