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
from feedback_app.feedback.examples.overturned import overturned_by_person
from feedback_app.feedback.models import Completion, Project, Source, Verdict, Vote
from feedback_app.feedback.votes.services import vote_cast
from feedback_app.serving.share_links.services import link_create, visitor_create
from feedback_app.training.models import Run
from feedback_app.training.runs.config import RunConfig
from feedback_app.training.runs.planning.plan import run_plan_shown
from feedback_app.training.runs.services import run_request
from feedback_app.training.snapshots import caps
from feedback_app.training.snapshots.caps import (
    cap_of,
    over_cap,
    people_cap,
    snapshot_totals,
    snapshot_totals_cached,
)
from feedback_app.training.snapshots.services import snapshot_freeze
from feedback_app.web.errors import UserError
from tests.browser.world import said
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
    voted_project.person_share, voted_project.person_floor = 40, 40
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
    agreed = [pk for pk in votes if len(votes[pk]) == 2 and len(set(votes[pk].values())) == 1]
    ties = [pk for pk in votes if len(set(votes[pk].values())) == 2]
    restored = [pk for pk in ties if pk in items]
    # 40 of theirs remain: alone, with the other's, or in a tie
    assert run.snapshot.left_out == skewed.examples.count() - (len(items) - len(restored)) > 0
    assert run.snapshot.left_out_people == 1
    taken = run.snapshot
    assert taken.train_total + taken.validation_total + taken.test_total == len(items)
    theirs = {pk: votes[pk][second_annotator.pk] == "up" for pk in (*agreed, *restored)}
    assert {pk: items[pk].desirable for pk in theirs} == theirs
    assert {items[pk].weight for pk in theirs} == {1}
    own = [pk for pk, given_ in votes.items() if set(given_) == {second_annotator.pk}]
    assert set(own) <= set(items)
    capped = people_cap(skewed)
    kept = sum(pk not in capped.examples for pk in agreed) + len(ties) - len(restored)
    assert len(only_theirs) + kept == 40


@pytest.mark.django_db
def test_plan_counts_the_snapshot_and_the_choice_is_deterministic(
    skewed: Project, admin: User, as_user: As
) -> None:
    plan = run_plan_shown(project=skewed, config=RunConfig())
    assert plan is not None
    page = as_user(admin).get(reverse("runs", args=["bot"])).content.decode()
    snapshot = run_request(project=skewed, by=admin).snapshot

    assert (plan.train_up, plan.train_down) == (snapshot.train_up, snapshot.train_down)
    assert plan.validation_total == snapshot.validation_total
    assert plan.test_total == snapshot.test_total
    assert plan.left_out == snapshot.left_out
    assert f"{plan.left_out} examples left out: one person gave more votes" in page
    run_page = as_user(admin).get(reverse("run", args=["bot", 1])).content.decode()
    assert f"{plan.left_out} examples left out: one person gave too many" in run_page
    for split, desirable, count in (
        ("train", True, "train_up"),
        ("validation", True, "validation_up"),
        ("test", False, "test_down"),
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
    real, computed = caps.capped, []

    def capped(dropped: Any, *, people: int) -> Any:
        computed.append(dropped)
        return real(dropped, people=people)

    monkeypatch.setattr(caps, "capped", capped)
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
    skewed.person_share = skewed.person_floor = 50

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
    good["edited_weight"] = "80"
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


# -- votes that overturn the labels of others


@pytest.fixture
def attacked(
    project: Project,
    annotator: User,
    second_annotator: User,
    make_completions: MakeCompletions,
) -> tuple[list[int], list[int]]:
    """Return the ids of twenty answers with an up of one person and a down of another, who gave
    forty downs on other answers as well."""
    answers = make_completions(60)
    for completion in answers[:20]:
        vote_cast(completion=completion, verdict=Verdict.UP, by=annotator, source="annotate")
    for completion in answers:
        vote_cast(
            completion=completion, verdict=Verdict.DOWN, by=second_annotator, source="annotate"
        )
    ids = [completion.pk for completion in answers]
    return ids[:20], ids[20:]


def frozen(project: Project) -> dict[int, bool]:
    """Return the labels of a snapshot taken now, and compare its totals with the items."""
    cap = people_cap(project)
    totals = snapshot_totals(project, cap)
    snapshot = snapshot_freeze(project=project, cap=cap, totals=totals)
    items = snapshot.items.all()
    counted = {
        f"{split}_{'up' if desirable else 'down'}": items.filter(
            split=split, desirable=desirable
        ).count()
        for split in ("train", "validation", "test")
        for desirable in (True, False)
    }
    assert counted == totals.counts
    for desirable, weight in ((True, totals.train_weight_up), (False, totals.train_weight_down)):
        train = items.filter(split="train", desirable=desirable)
        assert weight == pytest.approx(sum(train.values_list("weight", flat=True)))
    return dict(items.values_list("completion", "desirable"))


@pytest.mark.django_db
def test_sixty_downs_of_one_person_do_not_undo_the_ups_of_another(
    project: Project, admin: User, attacked: tuple[list[int], list[int]], as_user: As
) -> None:
    tied, own = attacked

    labels = frozen(project)
    page = " ".join(as_user(admin).get(reverse("runs", args=["bot"])).content.decode().split())

    assert "20 ties made by them count as examples again" in page

    assert [labels.get(pk) for pk in tied] == [True] * 20
    # their other votes are taken up to the cap: half of all votes
    assert sum(pk in labels for pk in own) == 40


@pytest.mark.django_db
def test_overturned_labels_are_capped_for_a_person_below_the_cap_on_votes(
    project: Project, attacked: tuple[list[int], list[int]], second_annotator: User
) -> None:
    _, own = attacked
    Vote.objects.filter(user=second_annotator, completion__in=own).delete()
    project.examples.filter(pk__in=own).delete()

    labels = frozen(project)

    # half of the twenty votes that the others gave
    assert list(labels.values()) == [True] * 10
    assert people_cap(project).people == 1


@pytest.mark.django_db
def test_overturned_label_belongs_to_the_later_verdict(
    project: Project,
    attacked: tuple[list[int], list[int]],
    annotator: User,
    second_annotator: User,
) -> None:
    tied, own = attacked
    found = overturned_by_person(project)
    assert {user: set(pks) for user, pks in found.items()} == {second_annotator.pk: set(tied)}
    # a new reason is no new verdict
    completion = Completion.objects.get(pk=tied[0])
    vote_cast(
        completion=completion,
        verdict=Verdict.UP,
        by=annotator,
        source="annotate",
        reasons=["clear"],
    )
    assert found == overturned_by_person(project)
    # a changed verdict is one
    completion = Completion.objects.get(pk=own[0])
    vote_cast(completion=completion, verdict=Verdict.DOWN, by=annotator, source="annotate")
    vote_cast(completion=completion, verdict=Verdict.UP, by=second_annotator, source="annotate")
    assert overturned_by_person(project)[second_annotator.pk] == {*tied, own[0]}


@pytest.mark.django_db
def test_quality_page_shows_whose_votes_changed_the_labels_of_others(
    admin: User, attacked: tuple[list[int], list[int]], as_user: As
) -> None:
    url = reverse("quality", args=["bot"])

    page = " ".join(as_user(admin).get(url, {"sort": "overturned"}).content.decode().split())

    row = page.split('<th scope="row">Bob')[1].split("</tr>")[0]
    assert "20" in row
    assert "chip warning" in row
    other = page.split('<th scope="row">Ann Otator')[1].split("</tr>")[0]
    assert "chip warning" not in other


@pytest.mark.parametrize(
    ("votes", "expected"),
    [
        ({1: 60, 2: 20}, {1: 40}),  # the minimum is at most half of all votes
        ({1: 300, 2: 1}, {1: 150}),  # so that one vote of a second person discards no more
        ({1: 5_000, 2: 10}, {1: 500}),
    ],
)
def test_minimum_of_a_person_follows_the_size_of_the_snapshot(
    votes: dict[int | None, int], expected: dict[int, int]
) -> None:
    assert over_cap(votes, project=Project(person_share=50, person_floor=500)) == expected


@pytest.mark.django_db
def test_visitors_of_one_share_link_are_capped_together(
    voted_project: Project, admin: User, annotator: User
) -> None:
    link, _ = link_create(
        project=voted_project,
        label="Fair",
        choice="base",
        days=1,
        messages_limit=1_000,
        messages_each=10,
        votes_limit=1_000,
        by=admin,
    )
    for number in range(80):
        visitor = visitor_create(link)
        answer = said(voted_project, f"Visitor {number}", "Yes.", version="base")
        vote_cast(completion=answer, verdict=Verdict.UP, by=visitor.user, source=Source.DEMO)

    cap = people_cap(voted_project)

    # half of 140 votes, although every visitor gave one
    assert (cap.people, cap.left_out) == (1, 10)
    assert Completion.objects.filter(pk__in=cap.examples, source=Source.DEMO).count() == 10
