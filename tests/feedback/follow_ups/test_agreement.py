"""How far follow-ups agree with votes, and the page that shows it."""

from collections.abc import Callable

import pytest
from django.test import Client
from django.urls import reverse

from feedback_app.accounts.models import User
from feedback_app.feedback.follow_ups.agreement import (
    LEAST_SHARED,
    follow_up_agreement,
    kappa_of,
    verdict_of,
)
from feedback_app.feedback.models import Completion, FollowUp, Project, Verdict, Vote

Kind = FollowUp.Kind


def test_kappa_is_that_of_the_literature() -> None:
    # 20 + 15 of 50 alike: observed 0.7, chance 0.5
    both = [(True, True)] * 20 + [(True, False)] * 5 + [(False, True)] * 10 + [(False, False)] * 15

    found = kappa_of(both)

    assert found.value == pytest.approx(0.4)
    assert found.low is not None
    assert found.high is not None
    # the standard error of this table is 0.13 by Fleiss, Cohen and Everitt
    assert found.high - found.low == pytest.approx(2 * 1.96 * 0.13, abs=0.02)


def test_kappa_of_few_perfect_answers_is_not_certain() -> None:
    few, many = ([(True, True), (False, False)] * count for count in (5, 200))

    assert kappa_of(few).value == kappa_of(many).value == 1
    assert (kappa_of(few).low or 0) < 0.7 < (kappa_of(many).low or 0)


@pytest.mark.parametrize("both", [[], [(True, True)] * 9])
def test_kappa_without_variation_is_undefined(both: list[tuple[bool, bool]]) -> None:
    assert kappa_of(both).value is None


@pytest.mark.parametrize(
    ("kinds", "verdict"),
    [
        ({Kind.COPIED}, True),
        ({Kind.THANKED}, True),
        ({Kind.REGENERATED}, False),
        ({Kind.STOPPED, Kind.REPHRASED}, False),
        ({Kind.COPIED, Kind.REGENERATED}, None),
    ],
)
def test_kinds_speak_for_or_against_an_answer(kinds: set[Kind], verdict: bool | None) -> None:
    assert verdict_of(kinds) is verdict


def follow(project: Project, user: User, answers: list[Completion], kind: Kind) -> None:
    FollowUp.objects.bulk_create(
        FollowUp(completion=each, user=user, project=project, kind=kind) for each in answers
    )


def agreeing(project: Project, user: User, *, wrong: int = 0) -> None:
    """Give voted answers the follow-up that their votes suggest, but for some."""
    ups = set(Vote.objects.filter(verdict=Verdict.UP).values_list("completion", flat=True))
    answers = list(project.completions.filter(vote_count__gt=0).order_by("pk"))
    for number, answer in enumerate(answers):
        liked = (answer.pk in ups) != (number < wrong)
        follow(project, user, [answer], Kind.COPIED if liked else Kind.REGENERATED)


@pytest.mark.django_db
def test_agreement_counts_answers_with_both(
    voted_project: Project, viewer: User, make_completions: Callable[..., list[Completion]]
) -> None:
    voted_project.follow_ups = True
    follow(voted_project, viewer, make_completions(3), Kind.STOPPED)
    agreeing(voted_project, viewer, wrong=6)

    found = follow_up_agreement(voted_project)

    assert found.kappa.shared == 60
    copied = next(kind for kind in found.kinds if kind.label == "Copied")
    stopped = next(kind for kind in found.kinds if kind.label == "Stopped")
    assert (copied.shared, copied.agreed) == (22, 18)
    assert (stopped.answers, stopped.shared, stopped.share) == (3, 0, None)
    assert found.counts


@pytest.mark.django_db
@pytest.mark.parametrize(("wrong", "why"), [(30, "lower end"), (0, "")])
def test_follow_ups_that_disagree_do_not_count(
    voted_project: Project, viewer: User, wrong: int, why: str
) -> None:
    voted_project.follow_ups = True
    agreeing(voted_project, viewer, wrong=wrong)

    found = follow_up_agreement(voted_project)

    assert found.counts is (not why)
    assert why in found.reason


@pytest.mark.django_db
def test_few_answers_with_both_do_not_count(voted_project: Project, viewer: User) -> None:
    voted_project.follow_ups = True
    agreeing(voted_project, viewer)
    FollowUp.objects.filter(pk__in=FollowUp.objects.values("pk")[:20]).delete()

    found = follow_up_agreement(voted_project)

    assert not found.counts
    assert f"{LEAST_SHARED} answers with a follow-up" in found.reason


@pytest.mark.django_db
def test_quality_page_shows_the_agreement_where_it_is_on(
    voted_project: Project, admin: User, viewer: User, as_user: Callable[[User], Client]
) -> None:
    client, url = as_user(admin), reverse("quality", args=["bot"])
    assert "Follow-ups and votes" not in client.get(url).content.decode()

    Project.objects.update(follow_ups=True)
    assert "They do not count" in client.get(url).content.decode()

    agreeing(voted_project, viewer)
    page = client.get(url).content.decode()
    assert "They count" in page
    assert "κ 1.00" in page or "κ +1.00" in page


@pytest.mark.django_db
def test_rules_page_switches_them_on(
    project: Project, admin: User, as_user: Callable[[User], Client]
) -> None:
    client, url = as_user(admin), reverse("rules", args=["bot"])
    values = {field.html_name: field.value() for field in client.get(url).context["form"]}
    body = {k: "on" if v is True else v for k, v in values.items() if v not in (None, "")}
    body = {k: v for k, v in body.items() if v is not False}

    client.post(url, body | {"follow_ups": "on"})

    project.refresh_from_db()
    assert project.follow_ups
