"""Groups of votes, and what the version would be without each."""

from collections.abc import Callable

import pytest

from feedback_app.accounts.models import User
from feedback_app.feedback.models import Completion, Project, Source, Split, Verdict, VoteEvent
from feedback_app.feedback.votes.services import vote_cast, vote_undo
from feedback_app.training.influence.groups import (
    Group,
    groups_of,
    ingredients,
    training_items,
)
from feedback_app.training.influence.services import snapshot_without
from feedback_app.training.models import Snapshot, SnapshotItem
from feedback_app.training.snapshots.caps import people_cap, snapshot_totals
from feedback_app.training.snapshots.services import snapshot_freeze

pytestmark = pytest.mark.django_db

MakeCompletions = Callable[..., list[Completion]]


@pytest.fixture
def answers(project: Project, make_completions: MakeCompletions) -> list[Completion]:
    """Ten answers to prompts of the training split."""
    Project.objects.filter(pk=project.pk).update(person_share=100)
    project.refresh_from_db()
    made = make_completions(40)
    training = [each for each in made if each.prompt.split == Split.TRAIN]
    return training[:10]


def cast(by: User, verdict: Verdict, *completions: Completion) -> None:
    for completion in completions:
        vote_cast(completion=completion, verdict=verdict, by=by, source=Source.ANNOTATE)


def frozen(project: Project) -> Snapshot:
    cap = people_cap(project)
    return snapshot_freeze(project=project, cap=cap, totals=snapshot_totals(project, cap))


def grouped(snapshot: Snapshot, kind: str, *, harmful: set[int] | None = None) -> dict[str, Group]:
    """Return groups where each example's own label helps by 1, except of these answers."""

    def influence(completion: int, desirable: bool) -> float:
        helps = completion not in (harmful or set())
        item = SnapshotItem.objects.get(snapshot=snapshot, completion=completion)
        return (1.0 if helps else -1.0) * (1 if desirable == item.desirable else -1)

    found = groups_of(
        ingredients(snapshot, training_items(snapshot)), influence, all_influence=10.0
    )
    return {group.key: group for group in found[kind]}


def test_a_lone_votes_example_is_gone_without_it(
    project: Project, annotator: User, answers: list[Completion]
) -> None:
    cast(annotator, Verdict.UP, *answers)
    snapshot = frozen(project)

    [group] = grouped(snapshot, "person").values()

    assert (group.key, group.votes, group.examples) == (str(annotator.pk), 10, 10)
    assert group.estimate == pytest.approx(1.0), "everything it learned helped: worse without"


def test_the_harmful_group_is_first(
    project: Project, annotator: User, second_annotator: User, answers: list[Completion]
) -> None:
    cast(annotator, Verdict.UP, *answers[:7])
    cast(second_annotator, Verdict.DOWN, *answers[7:])
    snapshot = frozen(project)

    found = grouped(snapshot, "person", harmful={each.pk for each in answers[7:]})

    assert list(found) == [str(second_annotator.pk), str(annotator.pk)]
    assert found[str(second_annotator.pk)].estimate == pytest.approx(-0.3)


def test_shared_answers_change_weight_or_side(
    project: Project,
    annotator: User,
    second_annotator: User,
    admin: User,
    answers: list[Completion],
) -> None:
    shared = answers[0]
    cast(annotator, Verdict.UP, shared)
    cast(second_annotator, Verdict.UP, shared)
    cast(admin, Verdict.DOWN, shared)
    snapshot = frozen(project)

    found = grouped(snapshot, "person")

    # with all three: up at a third; without the down: up at 1; without an up: a tie
    assert found[str(admin.pk)].estimate == pytest.approx((1 / 3 - 1) / 10)
    assert found[str(annotator.pk)].estimate == pytest.approx(1 / 30)


def test_votes_after_the_snapshot_and_undone_ones_are_in_no_group(
    project: Project, annotator: User, second_annotator: User, answers: list[Completion]
) -> None:
    cast(annotator, Verdict.UP, *answers[:2])
    cast(second_annotator, Verdict.UP, answers[1])
    vote_undo(completion=answers[1], by=second_annotator, source=Source.ANNOTATE)
    snapshot = frozen(project)
    cast(second_annotator, Verdict.UP, answers[0])

    assert list(grouped(snapshot, "person")) == [str(annotator.pk)]


def test_topic_source_and_week_group_the_same_votes(
    project: Project, annotator: User, answers: list[Completion]
) -> None:
    Completion.objects.filter(pk__in=[each.pk for each in answers[:4]]).update(topic="billing")
    cast(annotator, Verdict.UP, *answers)
    VoteEvent.objects.filter(completion=answers[0]).update(created_at="2026-01-01T12:00:00Z")
    snapshot = frozen(project)

    assert {k: g.votes for k, g in grouped(snapshot, "topic").items()} == {"billing": 4, "": 6}
    assert {k: g.votes for k, g in grouped(snapshot, "source").items()} == {"annotate": 10}
    weeks = grouped(snapshot, "week")
    assert weeks["2026-W01"].votes == 1
    assert len(weeks) == 2


@pytest.mark.parametrize("kind", ["person", "topic", "source", "week"])
def test_snapshot_without_a_group_changes_training_examples_only(
    project: Project,
    annotator: User,
    second_annotator: User,
    make_completions: MakeCompletions,
    answers: list[Completion],
    kind: str,
) -> None:
    Completion.objects.filter(pk__in=[each.pk for each in answers[:4]]).update(topic="billing")
    others = [each for each in project.completions.all() if each.pk not in {a.pk for a in answers}]
    cast(annotator, Verdict.UP, *answers[:6], *others)
    cast(second_annotator, Verdict.DOWN, *answers[4:])
    VoteEvent.objects.filter(completion__in=answers[:3]).update(created_at="2026-01-01T12:00:00Z")
    snapshot = frozen(project)
    before = snapshot.items.count()
    key = {"person": str(second_annotator.pk), "topic": "billing", "source": "annotate"}
    gone = {
        "person": {each.pk for each in answers[6:]},
        "topic": {each.pk for each in answers[:4]},
        "source": set(snapshot.items.filter(split="train").values_list("completion", flat=True)),
        "week": {each.pk for each in answers[:3]},
    }[kind]

    copy = snapshot_without(snapshot, kind, key.get(kind, "2026-W01"))

    kept = set(copy.items.values_list("completion", flat=True))
    then = set(snapshot.items.values_list("completion", flat=True))
    assert then - kept == gone
    assert snapshot.items.count() == before, "the snapshot itself stays"
    held_out = copy.items.exclude(split="train").count()
    assert held_out == snapshot.items.exclude(split="train").count()
    assert held_out > 0
    copy.refresh_from_db()
    assert copy.train_total == copy.items.filter(split="train").count()
    assert copy.validation_total == snapshot.validation_total


def test_weight_keeps_what_multiplies_it(
    project: Project, annotator: User, second_annotator: User, answers: list[Completion]
) -> None:
    cast(annotator, Verdict.UP, answers[0])
    cast(second_annotator, Verdict.UP, answers[0])
    snapshot = frozen(project)
    snapshot.items.filter(completion=answers[0]).update(weight=0.25)

    copy = snapshot_without(snapshot, "person", str(second_annotator.pk))

    assert copy.items.get(completion=answers[0]).weight == pytest.approx(0.25)
