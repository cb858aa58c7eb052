"""Fault 26: one person's votes are at most a share of a snapshot; the rest is shown as left out."""

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from hypothesis import given
from hypothesis import strategies as st

from feedback_app.accounts.models import User
from feedback_app.feedback.adjudication.services import adjudication_decide
from feedback_app.feedback.models import Completion, Project, Source, Verdict, Vote
from feedback_app.feedback.votes.services import vote_cast
from feedback_app.training.models import Run
from feedback_app.training.runs.config import RunConfig
from feedback_app.training.runs.plan import run_plan
from feedback_app.training.runs.services import run_request
from feedback_app.training.snapshots import caps
from feedback_app.training.snapshots.caps import (
    cap_of,
    over_cap,
    people_cap,
    snapshot_totals_cached,
)
from feedback_app.web.errors import UserError
from tests.conftest import MakeCompletions

pytestmark = pytest.mark.slow

As = Callable[[User], Client]


@given(st.lists(st.integers(1, 30), min_size=1, max_size=6), st.integers(0, 40), st.integers(1, 99))
def test_cap_is_the_largest_number_within_its_share(
    counts: list[int], others: int, percent: int
) -> None:
    fits = [
        cap
        for cap in range(max(counts) + 1)
        if 100 * cap <= percent * (others + sum(min(n, cap) for n in counts))
    ]
    assert cap_of(counts, others=others, percent=percent) == max(fits)


@pytest.mark.parametrize(
    ("votes", "expected"),
    [
        ({1: 5_000}, {}),  # the only person is not capped
        ({1: 5_000, 2: 10}, {1: 20}),  # the minimum, as half of 20 is less
        ({1: 5_000, 2: 400}, {1: 400}),
        ({1: 5_000, 2: 10, None: 990}, {1: 1_000}),  # imports count as other people's votes
        ({1: 30, 2: 30, 3: 30}, {}),
    ],
)
def test_cap_per_person(votes: dict[int | None, int], expected: dict[int, int]) -> None:
    project = Project(person_share=50, person_floor=20)

    assert over_cap(votes, project=project) == expected


@pytest.fixture
def skewed(
    voted_project: Project,
    annotator: User,
    second_annotator: User,
    make_completions: MakeCompletions,
) -> Project:
    """Create sixty votes of one person; of another, ten on the same answers and thirty on their
    own: enough of each class for a run, whichever of the sixty are taken."""
    shared = Completion.objects.filter(votes__user=annotator).order_by("pk")[:10]
    for number, completion in enumerate((*shared, *make_completions(30))):
        verdict = Verdict.UP if number % 2 else Verdict.DOWN
        vote_cast(completion=completion, verdict=verdict, by=second_annotator, source="annotate")
    voted_project.person_share, voted_project.person_floor = 30, 40
    voted_project.save()
    return voted_project


@pytest.mark.django_db
def test_snapshot_caps_votes_of_one_person_and_keeps_all_others(
    skewed: Project, admin: User, annotator: User, second_annotator: User
) -> None:
    run = run_request(project=skewed, by=admin)

    items = {item.completion_id: item for item in run.snapshot.items.all()}
    votes: dict[int, dict[int, str]] = {}
    for vote in Vote.objects.filter(project=skewed):
        votes.setdefault(vote.completion_id, {})[vote.user_id] = vote.verdict
    only_theirs = [pk for pk in items if set(votes[pk]) == {annotator.pk}]
    shared = [pk for pk in votes if len(votes[pk]) == 2 and pk in items]
    taken_back = [
        pk for pk in shared if items[pk].weight == 1 and len(set(votes[pk].values())) == 2
    ]
    agreed = [pk for pk in shared if len(set(votes[pk].values())) == 1]
    # 40 of theirs remain: alone, or with the other's; ties of both make no example
    assert len(only_theirs) <= 40
    assert run.snapshot.left_out == skewed.examples.count() - len(items) > 0
    assert run.snapshot.left_out_people == 1
    assert run.snapshot.train_total + run.snapshot.heldout_total == len(items)
    assert taken_back == []
    assert all(items[pk].desirable == (votes[pk][second_annotator.pk] == "up") for pk in agreed)
    own = [pk for pk, given_ in votes.items() if set(given_) == {second_annotator.pk}]
    assert set(own) <= set(items)
    theirs = len(only_theirs) + sum(
        pk in items and annotator.pk in votes[pk] and pk not in people_cap(skewed).examples
        for pk in agreed
    )
    assert theirs == 40


@pytest.mark.django_db
def test_plan_counts_the_snapshot_and_the_choice_is_deterministic(
    skewed: Project, admin: User, as_user: As
) -> None:
    plan = run_plan(project=skewed, config=RunConfig().as_json())
    page = as_user(admin).get(reverse("runs", args=["bot"])).content.decode()
    snapshot = run_request(project=skewed, by=admin).snapshot

    assert (plan.train_up, plan.train_down) == (snapshot.train_up, snapshot.train_down)
    assert plan.heldout_total == snapshot.heldout_total
    assert plan.left_out == snapshot.left_out
    assert f"{plan.left_out} examples left out: one person gave more votes" in page
    run_page = as_user(admin).get(reverse("run", args=["bot", 1])).content.decode()
    assert f"{plan.left_out} examples left out: one person gave too many" in run_page
    for split, desirable, count in (
        ("train", True, "train_up"),
        ("heldout", False, "heldout_down"),
    ):
        found = snapshot.items.filter(split=split, desirable=desirable).count()
        assert found == getattr(snapshot, count)
    Run.objects.update(status=Run.Status.CANCELLED)
    again = run_request(project=skewed, by=admin).snapshot
    same = [set(s.items.values_list("completion", "weight")) for s in (snapshot, again)]
    assert same[0] == same[1]


@pytest.mark.django_db
def test_run_recomputes_figures_that_the_page_caches(
    skewed: Project, admin: User, django_assert_num_queries: Any
) -> None:
    snapshot_totals_cached(skewed)
    Vote.objects.update(verdict="up")
    skewed.examples.update(desirable=True)

    with django_assert_num_queries(0):
        snapshot_totals_cached(skewed)
    with pytest.raises(UserError, match="0 down"):
        run_request(project=skewed, by=admin)


@pytest.mark.django_db
def test_run_computes_the_cap_once(
    skewed: Project, admin: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, computed = caps.remaining, []

    def remaining(dropped: Any) -> Any:
        computed.append(dropped)
        return real(dropped)

    monkeypatch.setattr(caps, "remaining", remaining)
    assert run_request(project=skewed, by=admin).snapshot.left_out > 0
    assert len(computed) == 1


@pytest.mark.django_db
def test_totals_equal_the_weights_of_the_snapshot(skewed: Project, admin: User) -> None:
    totals = snapshot_totals_cached(skewed)
    train = run_request(project=skewed, by=admin).snapshot.items.filter(split="train")
    for desirable, weight in ((True, totals.train_weight_up), (False, totals.train_weight_down)):
        assert weight == pytest.approx(
            sum(train.filter(desirable=desirable).values_list("weight", flat=True))
        )


@pytest.mark.django_db
def test_larger_cap_includes_the_votes_of_a_smaller_one(skewed: Project) -> None:
    small = set(people_cap(skewed).examples)
    skewed.person_floor = 50

    assert set(people_cap(skewed).examples) < small


@pytest.mark.django_db
def test_imported_labels_are_not_capped(skewed: Project, annotator: User) -> None:
    Vote.objects.filter(user=annotator).update(source=Source.IMPORT)

    assert people_cap(skewed).examples == {}


@pytest.mark.django_db
def test_resolved_answers_are_not_capped(skewed: Project, admin: User) -> None:
    pk = next(pk for pk, amounts in people_cap(skewed).examples.items() if amounts is None)
    completion = Completion.objects.get(pk=pk)

    adjudication_decide(completion=completion, verdict=Verdict.UP, why="", by=admin)

    assert pk not in people_cap(skewed).examples
    assert run_request(project=skewed, by=admin).snapshot.items.get(completion=pk).desirable


@pytest.mark.django_db
def test_rules_are_saved_and_validated(project: Project, admin: User, as_user: As) -> None:
    url = reverse("rules", args=["bot"])
    good = {"votes_per_hour": "600", "person_share": "30", "person_floor": "50"}
    good |= {"gold_every": "20", "gold_feedback": "after", "gold_least": "70", "gold_window": "10"}
    client = as_user(admin)

    assert b"Saved." in client.post(url, good, follow=True).content
    for bad in (
        {"person_share": "0"},
        {"person_floor": "-1"},
        {"gold_window": "0"},
        {"overlap": "3"},
    ):
        assert client.post(url, good | bad).status_code == 400
    project.refresh_from_db()
    assert (project.votes_per_hour, project.person_share, project.person_floor) == (600, 30, 50)
    assert project.overlap == 1
