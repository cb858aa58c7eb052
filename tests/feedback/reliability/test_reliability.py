"""Reliability of people: counted from their votes, shown, and renewed every hour."""

import datetime as dt
import random
from collections.abc import Callable

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from feedback_app.accounts.models import Role, User
from feedback_app.feedback.figures.services import figures_count, figures_due
from feedback_app.feedback.gold.services import gold_mark
from feedback_app.feedback.members.services import member_set
from feedback_app.feedback.models import Completion, Figures, Project, Source, Verdict, Vote
from feedback_app.feedback.reliability.services import (
    NAME,
    Reliability,
    reliability_count,
    reliability_of,
    reliability_renew,
    weights_of,
)
from feedback_app.feedback.votes.services import vote_cast
from tests.conftest import MakeCompletions

pytestmark = pytest.mark.django_db
As = Callable[[User], Client]


def people_make(project: Project, *names: str) -> list[User]:
    found = []
    for name in names:
        user = User.objects.create_user(f"{name.lower()}@example.com", "pw", name=name)
        member_set(project=project, user=user, role=Role.ANNOTATOR)
        found.append(user)
    return found


def votes_make(completions: list[Completion], by: User, verdicts: list[str]) -> None:
    Vote.objects.bulk_create(
        Vote(
            project=completion.project,
            completion=completion,
            user=by,
            verdict=verdict,
            source=Source.ANNOTATE,
        )
        for completion, verdict in zip(completions, verdicts, strict=True)
    )
    Completion.objects.filter(pk__in=[c.pk for c in completions]).update(vote_count=4)


@pytest.fixture
def judged(project: Project, make_completions: MakeCompletions) -> dict[str, User]:
    """Eighty answers, each judged by two good people, one who clicks at random and one who turns
    every verdict around."""
    rng = random.Random(3)
    answers = make_completions(80)
    truth = [rng.random() < 0.5 for _ in answers]
    names = ("Good", "Fine", "Random", "Adverse")
    people = dict(zip(names, people_make(project, *names), strict=True))
    right = {"Good": 0.95, "Fine": 0.9, "Random": 0.5, "Adverse": 0.1}
    for name, user in people.items():
        verdicts = [
            Verdict.UP if (rng.random() < right[name]) == up else Verdict.DOWN for up in truth
        ]
        votes_make(answers, user, verdicts)
    # one adversary and one random person could turn two good people around: gold decides
    return people


def count(project: Project) -> None:
    reliability_renew()
    for row in figures_due(NAME):
        assert figures_count(pk=row.pk, count=reliability_count)


def test_reliability_is_counted_by_a_worker_and_shown(
    project: Project, judged: dict[str, User], admin: User, as_user: As
) -> None:
    url = reverse("people", args=[project.slug])
    assert "verdicts)" not in as_user(admin).get(url).content.decode()

    count(project)

    known = reliability_of(project)
    assert known[judged["Good"].pk].low > 0.7
    assert known[judged["Random"].pk].value < 0.65
    assert known[judged["Adverse"].pk].high < 0.5
    text = as_user(admin).get(url).content.decode()
    assert text.count("from\n                      80 verdicts)") == 4


def test_queries_of_the_page_do_not_grow_with_people(
    project: Project,
    judged: dict[str, User],
    admin: User,
    as_user: As,
    django_assert_num_queries: Callable[..., object],
) -> None:
    count(project)
    client, url = as_user(admin), reverse("people", args=[project.slug])
    client.get(url)
    with django_assert_num_queries(10):  # type: ignore[attr-defined]
        client.get(url)


def test_first_verdict_on_gold_counts_even_if_it_was_changed(
    project: Project, annotator: User, admin: User, make_completions: MakeCompletions
) -> None:
    for completion in make_completions(30):
        gold_mark(completion=completion, verdict=Verdict.UP, why="", by=admin)
        completion.refresh_from_db()
        for verdict in (Verdict.DOWN, Verdict.UP):  # the page shows what would have been right
            vote_cast(completion=completion, verdict=verdict, by=annotator, source=Source.ANNOTATE)

    value, *_ = reliability_count(project)[annotator.pk]

    assert value < 0.6


def test_imported_labels_and_single_votes_say_nothing(
    project: Project, annotator: User, make_completions: MakeCompletions
) -> None:
    one, two = make_completions(2)
    vote_cast(completion=one, verdict=Verdict.UP, by=annotator, source=Source.ANNOTATE)
    vote_cast(completion=two, verdict=Verdict.UP, by=annotator, source=Source.IMPORT)

    assert reliability_count(project) == {}


def test_reliability_is_renewed_after_an_hour_only(
    project: Project, judged: dict[str, User]
) -> None:
    count(project)
    reliability_renew()
    assert not figures_due(NAME).exists()

    Figures.objects.filter(name=NAME).update(counted_at=timezone.now() - dt.timedelta(hours=2))
    reliability_renew()

    assert figures_due(NAME).count() == 1


def test_archived_projects_are_left_alone(project: Project) -> None:
    Project.objects.update(archived_at=timezone.now())
    reliability_renew()
    assert not Figures.objects.filter(name=NAME).exists()


def test_weights_need_the_setting_and_a_count(project: Project, judged: dict[str, User]) -> None:
    count(project)
    assert weights_of(project) == {}

    project.weigh_by_reliability = True
    weights = weights_of(project)

    assert max(weights.values()) == 1
    assert weights[judged["Good"].pk] > 0.8
    assert weights[judged["Random"].pk] < 0.4
    assert weights[judged["Adverse"].pk] == 0
    assert 0 < weights[0] < 1  # people about whom nothing is known


def test_chance_is_not_informative() -> None:
    assert Reliability(0.5, 0.4, 0.6, 10).informative == 0
    assert Reliability(0.2, 0.1, 0.3, 10).informative == 0
    assert Reliability(1.0, 0.9, 1.0, 10).informative == 1
