"""Compare: two versions side by side, against a real engine."""

from collections.abc import Callable
from typing import Any

import pytest
from django.core.cache import cache
from django.test import Client
from django.urls import reverse
from pytest_django import Settings

from feedback_app.accounts.models import User
from feedback_app.feedback.models import Completion, Example, Project, Vote
from feedback_app.serving.comparisons.services import (
    VERDICTS,
    comparison_begin,
    comparison_judge,
    comparison_withdraw,
    results,
    results_key,
    side_stream,
)
from feedback_app.serving.models import Comparison
from feedback_app.training.stats.sequential import read
from feedback_app.web.errors import UserError
from tests.served import MakeAdapter
from tests.serving.demo.test_pages import STREAM, events

pytestmark = [pytest.mark.django_db, pytest.mark.slow]

As = Callable[[User], Client]


def url(name: str, comparison: Comparison, *args: Any) -> str:
    return reverse(name, args=[comparison.project.slug, comparison.pk, *args])


@pytest.fixture
def names(served: Project, make_adapter: MakeAdapter) -> tuple[str, str]:
    return "base", make_adapter(3).name


@pytest.fixture
def asked(served: Project, viewer: User, names: tuple[str, str]) -> Comparison:
    return comparison_begin(project=served, user=viewer, question="Hello?", versions=names)


@pytest.fixture
def answered(asked: Comparison) -> Comparison:
    list(side_stream(comparison=asked, side="left"))
    list(side_stream(comparison=asked, side="right"))
    asked.refresh_from_db()
    assert asked.ready
    return asked


def verdicts(comparison: Comparison) -> dict[str, str]:
    """Return what this comparison's person has voted, by side."""
    votes = dict(Vote.objects.values_list("completion", "verdict"))
    return {side: votes[getattr(comparison, f"{side}_id")] for side in ("left", "right")}


def test_question_streams_from_both_sides_and_hides_names_until_judged(
    asked: Comparison, viewer: User, as_user: As
) -> None:
    client = as_user(viewer)
    seen = client.get(url("comparison", asked)).content.decode()
    ready = []
    for side in ("right", "left"):
        got = events(client.post(url("comparison-answer", asked, side), headers=STREAM))
        asked.refresh_from_db()
        answer = getattr(asked, side)
        assert answer.version == getattr(asked, f"{side}_version")
        assert answer.token_ids
        assert "".join(data["text"] for name, data in got if name == "piece") == answer.text
        assert got[-1][0] == "done"
        ready.append(got[-1][1]["ready"])
        seen += got[-1][1]["html"]
    seen += client.get(url("comparison", asked)).content.decode()
    assert ready == [False, True]
    # the pickers below name all versions; the two sides must not
    assert '<span class="mono">' not in seen

    page = client.post(url("comparison-judge", asked), {"choice": "left"}, follow=True)
    shown = page.content.decode()
    for version in (asked.left_version, asked.right_version):
        assert f'<span class="mono">{version}</span>' in shown
    assert verdicts(asked) == {"left": "up", "right": "down"}


@pytest.mark.parametrize("choice", VERDICTS)
def test_choice_casts_two_votes_once(answered: Comparison, choice: str) -> None:
    comparison_judge(comparison=answered, choice=choice)
    comparison_judge(comparison=answered, choice=choice)  # a double click
    assert tuple(verdicts(answered).values()) == VERDICTS[choice]
    assert Example.objects.count() == 2
    for other in set(VERDICTS) - {choice}:
        with pytest.raises(UserError, match="judged this comparison already"):
            comparison_judge(comparison=answered, choice=other)
    assert tuple(verdicts(answered).values()) == VERDICTS[choice]

    comparison_withdraw(comparison=answered)
    assert not Vote.objects.exists()
    assert not Example.objects.exists()
    assert results(answered.project) == []
    with pytest.raises(UserError, match="judged this comparison already"):
        comparison_judge(comparison=answered, choice=choice)


def test_failed_side_shows_an_error_can_be_retried_and_is_not_counted(
    asked: Comparison, viewer: User, as_user: As, settings: Settings
) -> None:
    client, engines = as_user(viewer), settings.ENGINES
    list(side_stream(comparison=asked, side="left"))
    settings.ENGINES = {asked.project.base_model: "http://127.0.0.1:9"}
    got = events(client.post(url("comparison-answer", asked, "right"), headers=STREAM))
    assert got[-1][0] == "error"
    assert "Try again" in got[-1][1]["html"]
    assert not got[-1][1]["ready"]
    page = client.post(url("comparison-judge", asked), {"choice": "left"}, follow=True)
    assert "An answer is missing" in page.content.decode()
    assert not Vote.objects.exists()

    settings.ENGINES = engines
    page = client.post(url("comparison-answer", asked, "right"), follow=True)
    assert "Try again" not in page.content.decode()
    asked.refresh_from_db()
    assert asked.ready
    with pytest.raises(UserError, match="complete"):
        side_stream(comparison=asked, side="right")


def test_aborted_answer_is_generated_again_before_judging(asked: Comparison) -> None:
    list(side_stream(comparison=asked, side="left"))
    pieces = side_stream(comparison=asked, side="right")
    next(pieces)
    pieces.close()  # type: ignore[attr-defined]  # the client disconnected
    asked.refresh_from_db()
    assert asked.right is not None
    assert asked.right.finish_reason == "aborted"
    with pytest.raises(UserError, match="missing"):
        comparison_judge(comparison=asked, choice="left")
    list(side_stream(comparison=asked, side="right"))
    asked.refresh_from_db()
    assert asked.ready


def test_first_of_two_streams_for_one_side_is_kept(asked: Comparison) -> None:
    first = side_stream(comparison=asked, side="left")
    second = side_stream(comparison=asked, side="left")
    list(first)
    asked.refresh_from_db()
    kept = asked.left_id
    list(second)
    asked.refresh_from_db()
    assert asked.left_id == kept
    assert Completion.objects.count() == 1


def test_result_sums_both_orders(served: Project, viewer: User) -> None:
    served.live_version = "bot@2"
    for left, right, choice in [
        ("base", "bot@2", "right"),
        ("bot@2", "base", "left"),
        ("bot@2", "base", "right"),
        ("base", "bot@2", "both"),
        ("base", "bot@2", ""),
        ("bot@1", "base", "neither"),
    ]:
        Comparison.objects.create(
            project=served, user=viewer, left_version=left, right_version=right, choice=choice
        )
    first, second = results(served)
    assert (first.first, first.second) == ("bot@2", "base")
    assert (first.wins, first.losses, first.both, first.neither) == (2, 1, 1, 0)
    assert first.reading == read(1, 0)
    assert (second.judged, second.share, second.reading.to_go) == (1, None, None)


def test_result_names_the_better_version_once_significant(
    served: Project, viewer: User, as_user: As
) -> None:
    def judged(choice: str, count: int) -> str:
        for _ in range(count):
            Comparison.objects.create(
                project=served,
                user=User.objects.create_service(name="Somebody"),
                left_version="base",
                right_version="bot@1",
                choice=choice,
            )
        cache.delete(results_key(served))  # as after a judgement
        page = as_user(viewer).get(reverse("compare", args=[served.slug])).content.decode()
        return " ".join(page.split())

    assert "no difference yet, about" in judged("left", 3)
    assert "base is better</span>" in judged("left", 9)
    assert "bot@1 is better</span>" in judged("right", 60)


def test_one_person_does_not_decide_a_comparison(
    served: Project, viewer: User, annotator: User, django_assert_num_queries: Any
) -> None:
    pair = {"left_version": "base", "right_version": "bot@1"}
    for choice in ("both", *["left"] * 40):
        Comparison.objects.create(project=served, user=viewer, choice=choice, **pair)
    other = {"left_version": "bot@1", "right_version": "base"}
    Comparison.objects.create(project=served, user=annotator, choice="left", **other)

    with django_assert_num_queries(1):
        [result] = results(served)
    with django_assert_num_queries(0):
        assert results(served) == [result]

    assert (result.wins, result.losses, result.both) == (40, 1, 1)
    # one win and one loss: the first decided comparison of each person
    assert (result.reading.state, result.reading) == ("open", read(1, 1))


@pytest.mark.parametrize(
    ("question", "versions", "why"),
    [
        (" ", ("base", "bot@3"), "Write something"),
        ("x" * 8_001, ("base", "bot@3"), "at most 8,000"),
        ("Hello?", ("base", "base"), "two different"),
        ("Hello?", ("base", "bot@9"), "no version bot@9"),
    ],
)
def test_question_that_cannot_be_compared_is_refused(
    served: Project, viewer: User, make_adapter: MakeAdapter, question: str, versions: Any, why: str
) -> None:
    made = make_adapter(3).name
    chosen = tuple(made if name == "bot@3" else name for name in versions)
    with pytest.raises(UserError, match=why):
        comparison_begin(project=served, user=viewer, question=question, versions=chosen)
    assert not Comparison.objects.exists()


def test_comparison_of_another_person_is_404(
    answered: Comparison, admin: User, as_user: As
) -> None:
    client = as_user(admin)
    assert client.get(url("comparison", answered)).status_code == 404
    for name, args in (
        ("comparison-answer", ("left",)),
        ("comparison-judge", ()),
        ("comparison-withdraw", ()),
    ):
        assert client.post(url(name, answered, *args), {}).status_code == 404
    assert not Vote.objects.exists()


def test_unknown_side_and_fields_are_refused(asked: Comparison, viewer: User, as_user: As) -> None:
    client = as_user(viewer)
    assert client.post(url("comparison-answer", asked, "middle")).status_code == 404
    page = client.post(url("comparison-judge", asked), {"choice": "left", "user": "1"}, follow=True)
    assert "Unknown fields: user" in page.content.decode()
    page = client.post(url("comparison-judge", asked), {"choice": "withdrawn"}, follow=True)
    assert "Choose one of" in page.content.decode()
    asked.refresh_from_db()
    assert asked.choice == ""


def test_compare_page_without_versions(served: Project, viewer: User, as_user: As) -> None:
    page = as_user(viewer).get(reverse("compare", args=[served.slug])).content.decode()
    assert "Nothing to compare yet" in page
