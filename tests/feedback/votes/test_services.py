"""A vote is idempotent, changeable and undoable, and its Example is updated at each step."""

import pytest

from feedback_app.accounts.models import User
from feedback_app.feedback.models import Completion, Example, Project, Source, Verdict, Vote
from feedback_app.feedback.queue.services import item_skip
from feedback_app.feedback.votes.services import vote_cast, vote_undo
from feedback_app.web.errors import UserError
from tests.conftest import MakeCompletions

pytestmark = pytest.mark.django_db


@pytest.fixture
def completion(make_completions: MakeCompletions) -> Completion:
    return make_completions(1)[0]


def cast(completion: Completion, by: User, verdict: Verdict = Verdict.UP, **extra: object) -> Vote:
    return vote_cast(completion=completion, verdict=verdict, by=by, source=Source.ANNOTATE, **extra)


def test_vote_makes_an_example_with_label_weight_and_split(
    completion: Completion, annotator: User
) -> None:
    cast(completion, annotator)

    example = Example.objects.get(completion=completion)
    assert example.desirable
    assert example.weight == 1
    assert example.split == completion.prompt.split


def test_same_vote_twice_is_one_vote_and_one_event(completion: Completion, annotator: User) -> None:
    cast(completion, annotator)
    cast(completion, annotator)

    assert completion.votes.count() == 1
    assert completion.vote_events.count() == 1


def test_changed_vote_updates_the_example_and_keeps_history(
    completion: Completion, annotator: User
) -> None:
    cast(completion, annotator, Verdict.UP)
    cast(completion, annotator, Verdict.DOWN)

    assert not Example.objects.get().desirable
    assert list(completion.vote_events.values_list("verdict", flat=True)) == ["up", "down"]


def test_undo_then_vote_again_updates_the_example_each_time(
    completion: Completion, annotator: User
) -> None:
    cast(completion, annotator)
    assert vote_undo(completion=completion, by=annotator, source=Source.ANNOTATE)
    assert not Example.objects.exists()
    completion.refresh_from_db()
    assert completion.vote_count == 0

    cast(completion, annotator, Verdict.DOWN)
    assert not Example.objects.get().desirable
    events = list(completion.vote_events.order_by("pk").values_list("verdict", flat=True))
    assert events == ["up", "", "down"]


def test_undo_without_a_vote_changes_nothing(completion: Completion, annotator: User) -> None:
    assert not vote_undo(completion=completion, by=annotator, source=Source.ANNOTATE)
    assert not completion.vote_events.exists()


def test_tie_has_no_example_and_majority_is_weighted_by_agreement(
    completion: Completion, annotator: User, second_annotator: User, admin: User
) -> None:
    cast(completion, annotator, Verdict.UP)
    cast(completion, second_annotator, Verdict.DOWN)
    assert not Example.objects.exists()

    cast(completion, admin, Verdict.UP)
    example = Example.objects.get()
    assert example.desirable
    assert example.weight == pytest.approx(1 / 3)


def test_deleting_the_completion_deletes_its_example(
    completion: Completion, annotator: User
) -> None:
    cast(completion, annotator)
    completion.delete()
    assert not Example.objects.exists()
    assert not Vote.objects.exists()


def test_empty_answer_has_no_example(completion: Completion, annotator: User) -> None:
    Completion.objects.filter(pk=completion.pk).update(text="  ")
    cast(completion, annotator, Verdict.DOWN)
    assert completion.votes.count() == 1
    assert not Example.objects.exists()


def test_unknown_reason_is_refused_and_nothing_is_stored(
    completion: Completion, annotator: User
) -> None:
    with pytest.raises(UserError, match="sabotage"):
        cast(completion, annotator, Verdict.DOWN, reasons=["sabotage"])
    assert not Vote.objects.exists()


def test_reasons_are_removed_when_the_verdict_changes(
    completion: Completion, annotator: User
) -> None:
    cast(completion, annotator, Verdict.DOWN, reasons=["long"], comment="rambles")
    vote = cast(completion, annotator, Verdict.UP)
    assert vote.reasons == []
    assert vote.comment == "rambles"


def test_flag_removes_the_item_from_all_queues_until_undone(
    completion: Completion, annotator: User, project: Project
) -> None:
    item_skip(completion=completion, by=annotator, flag=True)
    assert not project.completions.in_queue().exists()

    assert vote_undo(completion=completion, by=annotator, source=Source.ANNOTATE)
    assert project.completions.in_queue().get() == completion
