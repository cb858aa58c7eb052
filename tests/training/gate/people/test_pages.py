"""The pages of blind pairs: blind, for the project's people only, and the run's progress."""

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from feedback_app.accounts.models import Role, User
from feedback_app.feedback.members.services import member_set
from feedback_app.feedback.models import Pause, Project
from feedback_app.feedback.projects.services import project_create
from feedback_app.training.gate.people.decision import batch_decide
from feedback_app.training.gate.people.services import batch_close
from feedback_app.training.models import Adapter, BlindPair, PairBatch, PairVote
from tests.training.gate.people.world import CANDIDATE, batch_of, click, judge, people_run, side

pytestmark = [pytest.mark.django_db, pytest.mark.slow]

As = Callable[[User], Client]


@pytest.fixture
def adapter(voted_project: Project, admin: User) -> Adapter:
    return people_run(voted_project, admin)


@pytest.fixture
def pair(adapter: Adapter) -> BlindPair:
    found = adapter.pair_batch.pairs.order_by("position").first()
    assert found is not None
    return found


def at(name: str, *args: Any) -> str:
    return reverse(name, args=["bot", *args])


def test_pair_is_blind(
    voted_project: Project, admin: User, annotator: User, second_annotator: User, as_user: As
) -> None:
    first = people_run(voted_project, admin)
    first.pair_batch.delete()
    voted_project.live_version = first.name
    voted_project.save()
    adapter = people_run(voted_project, admin, live=first.name)
    assert adapter.gate["opponent"] == first.name == "bot@1"
    pair = adapter.pair_batch.pairs.order_by("position")[0]
    for user in (annotator, second_annotator, admin):
        assert "bot@" not in as_user(user).get(at("pairs")).content.decode()
        html = as_user(user).get(at("pair", pair.pk)).content.decode()
        assert "bot@" not in html
        html = html[html.index("<main") :]  # a style sheet is called base.css
        assert "Fresh answer number 0." in html
        assert "Plain answer number 0." in html
        for word in ("base", "candidate", "Be brief."):
            assert word not in html
        left = html.index("Fresh") < html.index("Plain")
        assert left == (side(pair, user, CANDIDATE) == PairVote.Side.LEFT)


def test_annotation_page_says_that_pairs_wait(
    adapter: Adapter, annotator: User, as_user: As
) -> None:
    client = as_user(annotator)
    html = client.get(at("annotate")).content.decode()
    assert "100 pairs of answers wait for you" in html
    assert at("pairs") in html
    adapter.pair_batch.pairs.filter(position__gt=0).delete()
    assert "1 pair of answers waits for you" in client.get(at("annotate")).content.decode()
    judge(adapter.pair_batch.pairs.all(), annotator, PairVote.Choice.TIE)
    assert "of answers" not in client.get(at("annotate")).content.decode()
    assert "No pairs wait for you" in client.get(at("pairs")).content.decode()


def test_choice_is_undone_and_changed(
    pair: BlindPair, adapter: Adapter, annotator: User, as_user: As
) -> None:
    client = as_user(annotator)
    click(client, pair, annotator, CANDIDATE)
    page = client.get(at("pairs")).content.decode()
    assert at("pair-undo", pair.pk) in page
    shown = client.get(at("pair", pair.pk)).content.decode()
    letter = "A" if side(pair, annotator, CANDIDATE) == PairVote.Side.LEFT else "B"
    assert f"<strong>{letter} is better</strong>" in shown
    click(client, pair, annotator, PairVote.Choice.TIE)
    assert PairVote.objects.get().choice == PairVote.Choice.TIE
    answer = client.post(at("pair-undo", pair.pk))
    assert answer["Location"] == at("pair", pair.pk)
    assert not PairVote.objects.exists()
    again = client.post(at("pair-undo", pair.pk), follow=True)
    assert "There was nothing to undo." in again.content.decode()


def test_pair_that_somebody_judged_is_closed_to_others(
    pair: BlindPair, annotator: User, second_annotator: User, as_user: As
) -> None:
    click(as_user(annotator), pair, annotator, CANDIDATE)
    client = as_user(second_annotator)
    assert client.get(at("pair", pair.pk)).status_code == 404
    address, body = at("pair-vote", pair.pk), {"choice": "left"}
    answer = client.post(address, body, follow=True)
    assert "Somebody else has judged this pair meanwhile" in answer.content.decode()
    assert PairVote.objects.get().user == annotator


def test_unknown_choice_is_refused(pair: BlindPair, annotator: User, as_user: As) -> None:
    as_user(annotator).post(at("pair-vote", pair.pk), {"choice": "candidate"})
    assert not PairVote.objects.exists()


def test_people_of_another_project_find_nothing(
    pair: BlindPair, outsider: User, as_user: As
) -> None:
    client = as_user(outsider)
    for name in ("pair", "pair-vote", "pair-undo"):
        method = client.get if name == "pair" else client.post
        for slug in ("bot", "other"):
            body = {"choice": "left"} if name == "pair-vote" else {}
            assert method(reverse(name, args=[slug, pair.pk]), body).status_code == 404
    assert client.get(at("pairs")).status_code == 404
    assert client.get(at("run-pairs", 1)).status_code == 404
    assert not PairVote.objects.exists()


def test_viewers_judge_nothing(pair: BlindPair, viewer: User, as_user: As) -> None:
    client = as_user(viewer)
    assert client.get(at("pair", pair.pk)).status_code == 403
    assert client.post(at("pair-vote", pair.pk), {"choice": "left"}).status_code == 403


def test_paused_people_judge_nothing(pair: BlindPair, annotator: User, as_user: As) -> None:
    client = as_user(annotator)
    click(client, pair, annotator, CANDIDATE)
    Pause.objects.create(project=pair.batch.project, user=annotator, right=1, of=3)
    assert "You are paused" in client.get(at("pairs")).content.decode()
    assert client.get(at("pair", pair.pk))["Location"] == at("pairs")
    for name in ("pair-vote", "pair-undo"):
        body = {"choice": "tie"} if name == "pair-vote" else {}
        answer = client.post(at(name, pair.pk), body, follow=True)
        assert "You are paused" in answer.content.decode()
    assert PairVote.objects.get().choice == CANDIDATE
    assert "pairs of answers" not in client.get(at("annotate")).content.decode()


def test_pairs_are_gone_once_they_have_ended(
    pair: BlindPair, adapter: Adapter, annotator: User, admin: User, as_user: As
) -> None:
    client = as_user(annotator)
    assert as_user(admin).get(at("run-pairs", 1)).status_code == 404
    batch_close(batch=adapter.pair_batch, by=admin)
    assert client.get(at("pair", pair.pk)).status_code == 404
    assert client.get(at("run-pairs", 1)).status_code == 403
    for name, body in (("pair-vote", {"choice": "left"}), ("pair-undo", {})):
        answer = client.post(at(name, pair.pk), body, follow=True)
        assert "your choice is no longer needed, and was not stored" in answer.content.decode()
    assert not PairVote.objects.exists()


def test_run_page_shows_progress_and_then_the_pairs_with_their_versions(
    adapter: Adapter, annotator: User, admin: User, as_user: As
) -> None:
    judge(adapter.pair_batch.pairs.all()[:3], annotator, CANDIDATE)
    client = as_user(admin)
    page = client.get(at("run", 1)).content.decode()
    assert "Waiting for people: 3 of 100 pairs judged." in page
    assert "people have judged 3 of 100 pairs" in page
    assert "of the pairs without ties, new preferred to live" in page
    assert at("run-pairs", 1) + '"' not in page
    client.post(at("run-pairs-close", 1))
    assert "The gate decides now." in client.get(at("run", 1)).content.decode()
    again = client.post(at("run-pairs-close", 1), follow=True).content.decode()
    assert "These pairs have ended already." in again
    batch_decide(PairBatch.objects.get().pk)
    page = client.get(at("run", 1)).content.decode()
    assert "Waiting for people" not in page
    assert at("run-pairs", 1) in page
    shown = client.get(at("run-pairs", 1)).content.decode()
    assert shown.count(adapter.name) > 25
    assert "Fresh answer number 0." in shown
    assert "1 : 0" in shown
    assert "Page 1 of 4" in shown


def test_run_without_pairs_has_no_page_of_them(
    voted_project: Project, admin: User, as_user: As
) -> None:
    assert as_user(admin).get(at("run-pairs", 1)).status_code == 404
    assert as_user(admin).post(at("run-pairs-close", 1)).status_code == 404
    people_run(voted_project, admin, prompts=300, finished=0.2)
    assert as_user(admin).get(at("run-pairs", 1)).status_code == 404
    assert as_user(admin).post(at("run-pairs-close", 1)).status_code == 404


def test_pages_need_few_queries_however_many_pairs(
    voted_project: Project,
    admin: User,
    annotator: User,
    second_annotator: User,
    as_user: As,
    django_assert_max_num_queries: Any,
) -> None:
    adapter = people_run(voted_project, admin, prompts=60)
    judge(adapter.pair_batch.pairs.all()[:20], annotator, PairVote.Choice.TIE)
    judge(adapter.pair_batch.pairs.all()[20:40], second_annotator, PairVote.Choice.TIE)
    client, owner = as_user(annotator), as_user(admin)
    pair = adapter.pair_batch.pairs.all()[45]
    with django_assert_max_num_queries(9):
        client.get(at("pairs"))
    with django_assert_max_num_queries(10):
        client.get(at("pair", pair.pk))
    with django_assert_max_num_queries(21):
        click(client, pair, annotator, PairVote.Choice.TIE)
    batch_close(batch=adapter.pair_batch, by=admin)
    with django_assert_max_num_queries(9):
        owner.get(at("run-pairs", 1))


def test_two_projects_have_pairs_of_their_own(
    adapter: Adapter, annotator: User, admin: User, as_user: As
) -> None:
    """Also for a person who annotates in both."""
    other = project_create(slug="second", name="Second", base_model="SmolLM2", owner=admin)
    member_set(project=other, user=annotator, role=Role.ANNOTATOR)
    pair = adapter.pair_batch.pairs.all()[0]
    client = as_user(annotator)
    assert client.get(reverse("pairs", args=["second"])).context["pair"] is None
    assert client.get(reverse("pair", args=["second", pair.pk])).status_code == 404
    adapter.pair_batch.delete()
    batch_of(adapter)
    assert client.get(at("pairs")).context["waiting"] == 12
