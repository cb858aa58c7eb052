"""The quality page: agreement checked against values computed by hand, and figures per person."""

import datetime as dt
from collections.abc import Callable
from typing import Any

import pytest
from django.core.cache import cache
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from feedback_app.accounts.models import User
from feedback_app.feedback.gold.services import gold_mark
from feedback_app.feedback.members.services import member_set
from feedback_app.feedback.models import Pause, Project, Source, Verdict, Vote
from feedback_app.feedback.quality import selectors
from feedback_app.feedback.quality.agreement import ALL_THE_SAME, NOTHING_SHARED, alpha_of
from feedback_app.feedback.quality.selectors import Person, quality_measure
from feedback_app.feedback.queue.services import item_skip
from feedback_app.feedback.votes.services import vote_cast
from tests.conftest import MakeCompletions

As = Callable[[User], Client]


def test_alpha_equals_krippendorffs_computed_by_hand() -> None:
    """Four answers by two people, three agreed: o₍ud₎ = 1, n_u = 3, n_d = 5, so that
    α = 1 − (n − 1) o / (n_u n_d) = 1 − 7 · 1 / 15."""
    found = alpha_of([(1, 1), (2, 0), (0, 2), (0, 2), (1, 0)])

    assert found.value == pytest.approx(1 - 7 / 15)
    assert found.units == 4, "an answer with one verdict is not a unit"
    assert "Agreement is low" in found.meaning


@pytest.mark.parametrize(
    ("counts", "why"),
    [([], NOTHING_SHARED), ([(1, 0), (0, 1)], NOTHING_SHARED), ([(2, 0), (3, 0)], ALL_THE_SAME)],
)
def test_alpha_undefined_gives_the_reason(counts: list[tuple[int, int]], why: str) -> None:
    found = alpha_of(counts)

    assert found.value is None
    assert why in found.meaning


def test_alpha_is_one_for_agreement_and_below_zero_for_contradiction() -> None:
    assert alpha_of([(2, 0), (0, 2)]).value == pytest.approx(1)
    opposed = alpha_of([(1, 1)] * 10).value
    assert opposed is not None
    assert opposed < 0


@pytest.fixture
def judged(
    project: Project,
    admin: User,
    annotator: User,
    second_annotator: User,
    make_completions: MakeCompletions,
) -> Project:
    """Ten answers: Ann and Bob agree on eight, Ada judges four of them as Ann does."""
    rows = make_completions(13)
    for number, row in enumerate(rows[:10]):
        up = number % 2 == 0
        verdicts = {annotator: up, second_annotator: up if number < 8 else not up}
        if number < 4:
            verdicts[admin] = up
        for person, verdict in verdicts.items():
            said = Verdict.UP if verdict else Verdict.DOWN
            vote_cast(completion=row, verdict=said, by=person, source=Source.ANNOTATE)
    item_skip(completion=rows[10], by=annotator)
    vote_cast(completion=rows[11], verdict=Verdict.UP, by=admin, source=Source.IMPORT)
    return project


def person(project: Project, name: str) -> Person:
    return next(p for p in quality_measure(project).people if p.name == name)


@pytest.mark.django_db
def test_people_are_compared_with_the_majority_of_the_others(judged: Project) -> None:
    bob, ada = person(judged, "Bob"), person(judged, "Ada Admin")

    assert (bob.agreed, bob.compared) == (8, 10)
    assert (ada.votes, ada.agreed, ada.compared) == (4, 4, 4), "imported votes do not count"
    found = quality_measure(judged)
    assert found.votes == 24
    shared = {(pair.first, pair.second): pair.alpha for pair in found.pairs}
    assert {units: pair.units for units, pair in shared.items()} == {
        ("Ada Admin", "Ann Otator"): 4,
        ("Ada Admin", "Bob"): 4,
        ("Ann Otator", "Bob"): 10,
    }
    assert shared["Ada Admin", "Bob"].value == pytest.approx(1)
    # n_u = n_d = 10 of 20, two answers disagreed: 1 − 19 · 2 / 100
    assert shared["Ann Otator", "Bob"].value == pytest.approx(0.62)


@pytest.mark.django_db
def test_pace_excludes_breaks_and_hasty_votes_are_counted(
    judged: Project, annotator: User, admin: User
) -> None:
    begun = timezone.now() - dt.timedelta(hours=2)
    for number, vote in enumerate(Vote.objects.filter(user=annotator).order_by("pk")):
        # ten seconds per verdict, with an hour's break in the middle
        pause = dt.timedelta(hours=number >= 5)
        at = begun + pause + dt.timedelta(seconds=10 * number)
        Vote.objects.filter(pk=vote.pk).update(created_at=at, hasty=number < 2)
    gold = judged.completions.filter(vote_count=0, skips=None)[0]
    gold_mark(completion=gold, verdict=Verdict.UP, why="", by=admin)
    vote_cast(completion=gold, verdict=Verdict.DOWN, by=annotator, source=Source.ANNOTATE)
    Vote.objects.filter(completion=gold).update(created_at=begun + dt.timedelta(hours=1.9))

    ann = person(judged, "Ann Otator")

    assert ann.per_hour == pytest.approx(360)
    assert (ann.skip_rate, ann.hasty_share) == (pytest.approx(1 / 12), pytest.approx(2 / 11))
    assert (ann.gold_right, ann.gold) == (0, 1)


@pytest.mark.django_db
def test_votes_set_aside_do_not_count_for_agreement(
    judged: Project, second_annotator: User
) -> None:
    pause = Pause.objects.create(project=judged, user=second_annotator, right=0, of=3)
    Vote.objects.filter(user=second_annotator).update(set_aside=pause)

    found = quality_measure(judged)

    assert found.alpha.units == 4
    assert person(judged, "Bob").set_aside == 10
    assert person(judged, "Bob").agreement is None


@pytest.mark.django_db
def test_overturned_labels_are_those_of_the_votes_that_are_read(
    judged: Project,
    annotator: User,
    second_annotator: User,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert person(judged, "Bob").overturned == 2
    # the newest votes are on other answers
    for row in judged.completions.filter(vote_count=0, skips=None):
        for by in (annotator, second_annotator):
            vote_cast(completion=row, verdict=Verdict.UP, by=by, source=Source.ANNOTATE)
    monkeypatch.setattr(selectors, "WINDOW", 2)
    assert (person(judged, "Bob").votes, person(judged, "Bob").overturned) == (1, 0)


@pytest.mark.slow
@pytest.mark.django_db
def test_page_sorts_paginates_and_takes_few_queries(
    judged: Project, admin: User, as_user: As, django_assert_max_num_queries: Any
) -> None:
    row = judged.completions.first()
    assert row is not None
    for number in range(30):
        user = User.objects.create_user(f"p{number}@example.com", name=f"Person {number:02}")
        member_set(project=judged, user=user, role="annotator")
        vote_cast(completion=row, verdict=Verdict.UP, by=user, source=Source.ANNOTATE)
    client = as_user(admin)
    url = reverse("quality", args=["bot"])

    with django_assert_max_num_queries(15):
        page = client.get(url, {"sort": "name"}).content.decode()
    assert page.index("Ada Admin") < page.index("Ann Otator") < page.index("Person 00")
    assert "?sort=name&amp;page=2" in page
    assert ">Next</a>" in page, "sorted by name, the next page is Next"
    assert "Older" not in page
    assert page.count('aria-sort="ascending"') == 1
    assert "Bob" in client.get(url, {"sort": "agreement"}).content.decode().split("Person")[1]
    pairs = client.get(url, {"show": "pairs", "sort": "alpha"}).content.decode()
    assert "Ann Otator and Bob" in pairs
    assert "show=pairs&amp;sort=alpha&amp;page=2" in pairs
    assert client.get(url, {"sort": "user__password"}).status_code == 400
    assert client.get(url, {"show": "pairs", "sort": "pace"}).status_code == 400


@pytest.mark.slow
@pytest.mark.django_db
def test_page_explains_undefined_agreement(
    voted_project: Project, admin: User, annotator: User, as_user: As
) -> None:
    url = reverse("quality", args=["bot"])

    page = as_user(admin).get(url).content.decode()

    assert ">undefined</strong>" in page
    assert "No answer has two verdicts." in page
    assert as_user(annotator).get(url).status_code == 403
    Vote.objects.all().delete()
    cache.clear()
    assert b"No verdicts yet" in as_user(admin).get(url).content
