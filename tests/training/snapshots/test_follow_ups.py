"""Follow-ups in a snapshot: little weight, training only, and only while they agree with votes."""

from collections.abc import Callable

import pytest

from feedback_app.accounts.models import User
from feedback_app.feedback.models import Completion, FollowUp, Project, Source, Split, Verdict
from feedback_app.feedback.votes.services import vote_cast
from feedback_app.training.models import Snapshot
from feedback_app.training.runs.config import RunConfig
from feedback_app.training.runs.services import run_request
from feedback_app.training.snapshots.follow_ups import MOST_EACH, WEIGHT
from feedback_app.training.snapshots.services import snapshot_copy
from tests.feedback.follow_ups.test_agreement import agreeing, follow

pytestmark = pytest.mark.django_db

MakeCompletions = Callable[..., list[Completion]]
Kind = FollowUp.Kind


@pytest.fixture
def unvoted(
    voted_project: Project, viewer: User, make_completions: MakeCompletions
) -> list[Completion]:
    """Forty answers without a vote, all of them copied; and follow-ups that agree with votes."""
    Project.objects.update(follow_ups=True, person_share=100)
    voted_project.refresh_from_db()
    agreeing(voted_project, viewer)
    answers = make_completions(40)
    for number, answer in enumerate(answers):
        reader = User.objects.create(email=f"reader{number}@example.com")
        follow(voted_project, reader, [answer], Kind.COPIED)
    return answers


def taken(project: Project, admin: User) -> Snapshot:
    project.runs.all().delete()
    return run_request(project=project, by=admin, config=RunConfig(batch_size=4)).snapshot


def test_answers_without_votes_become_training_examples_of_little_weight(
    voted_project: Project, admin: User, unvoted: list[Completion]
) -> None:
    snapshot = taken(voted_project, admin)

    items = list(snapshot.items.filter(implicit=True).select_related("completion__prompt"))
    assert items
    assert {item.weight for item in items} == {WEIGHT}
    assert all(item.desirable for item in items)
    assert {item.split for item in items} == {"train"}
    assert {item.completion.prompt.split for item in items} == {"train"}
    from_votes = snapshot.items.filter(implicit=False, split="train").count()
    assert len(items) <= from_votes // 4
    assert snapshot.follow_ups == len(items)
    assert snapshot.train_total == snapshot.items.filter(split="train").count()


def test_validation_and_test_examples_are_those_of_votes(
    voted_project: Project, admin: User, unvoted: list[Completion]
) -> None:
    held_out = [each.pk for each in unvoted if each.prompt.split != Split.TRAIN]
    assert held_out

    snapshot = taken(voted_project, admin)

    assert not snapshot.items.filter(completion__in=held_out).exists()
    assert not snapshot.items.exclude(split="train").filter(implicit=True).exists()


def test_switched_off_they_are_left_out(
    voted_project: Project, admin: User, unvoted: list[Completion]
) -> None:
    Project.objects.update(follow_ups=False)

    snapshot = taken(voted_project, admin)

    assert (snapshot.follow_ups, snapshot.items.filter(implicit=True).count()) == (0, 0)


def test_without_agreement_they_are_left_out(
    voted_project: Project, admin: User, unvoted: list[Completion]
) -> None:
    voted = voted_project.completions.filter(vote_count__gt=0)
    FollowUp.objects.filter(completion__in=voted).delete()

    assert taken(voted_project, admin).follow_ups == 0


def test_a_vote_replaces_the_follow_up(
    voted_project: Project, admin: User, annotator: User, unvoted: list[Completion]
) -> None:
    [chosen, *_] = [each for each in unvoted if each.prompt.split == Split.TRAIN]
    vote_cast(completion=chosen, verdict=Verdict.DOWN, by=annotator, source=Source.ANNOTATE)

    item = taken(voted_project, admin).items.get(completion=chosen)

    assert (item.implicit, item.desirable, item.weight) == (False, False, 1)


def test_one_person_supplies_few(
    voted_project: Project, admin: User, viewer: User, make_completions: MakeCompletions
) -> None:
    Project.objects.update(follow_ups=True, person_share=100)
    agreeing(voted_project, viewer)
    more = make_completions(200)
    for answer in more[:120]:
        vote_cast(completion=answer, verdict=Verdict.UP, by=admin, source=Source.ANNOTATE)
    follow(voted_project, viewer, more[120:], Kind.STOPPED)

    assert taken(voted_project, admin).follow_ups == MOST_EACH


def test_copy_of_a_snapshot_keeps_them(
    voted_project: Project, admin: User, unvoted: list[Completion]
) -> None:
    snapshot = taken(voted_project, admin)

    copy = snapshot_copy(snapshot)

    assert copy.follow_ups == snapshot.follow_ups > 0
    assert copy.items.filter(implicit=True).count() == snapshot.follow_ups
