"""Snapshots of earlier, as they would have been without an erased person."""

from collections.abc import Callable

import pytest

from feedback_app.accounts.models import User
from feedback_app.feedback.adjudication.services import adjudication_decide
from feedback_app.feedback.models import Completion, Project, Source, Verdict
from feedback_app.feedback.votes.services import vote_cast, vote_undo
from feedback_app.privacy.erasure import person_erase
from feedback_app.training.models import Run, Snapshot
from feedback_app.training.runs.execution.taking import snapshot_take
from feedback_app.training.runs.services import run_cancel, run_request
from feedback_app.training.snapshots import services
from feedback_app.training.snapshots.services import snapshot_copy

pytestmark = pytest.mark.django_db


def vote(completion: Completion, by: User, verdict: Verdict) -> None:
    vote_cast(completion=completion, verdict=verdict, by=by, source=Source.ANNOTATE)


def ended(project: Project, admin: User) -> Run:
    run = run_request(project=project, by=admin)
    Run.objects.filter(pk=run.pk).update(status=Run.Status.SUCCEEDED)
    return run


def items(snapshot: Snapshot) -> dict[int, tuple[bool, float, str]]:
    rows = snapshot.items.values_list("completion", "desirable", "weight", "split")
    return {pk: (desirable, weight, split) for pk, desirable, weight, split in rows}


@pytest.fixture
def bob(second_annotator: User) -> User:
    return second_annotator


def test_snapshots_become_those_of_a_project_without_the_person(
    voted_project: Project, admin: User, annotator: User, bob: User, make_completions: Callable
) -> None:
    """Annotator's votes are in the project; Bob votes with, against, alone and undecidedly."""
    Project.objects.filter(pk=voted_project.pk).update(person_share=100)
    voted_project.refresh_from_db()
    without = ended(voted_project, admin)
    agreed, against, tied, changed = voted_project.completions.order_by("pk")[:4]
    [alone] = make_completions(1)
    for completion, verdict in (
        (agreed, Verdict.UP),  # an up like the annotator's: the weight stays
        (against, Verdict.UP),  # a down of the annotator: a tie
        (tied, Verdict.UP),
        (changed, Verdict.UP),
        (alone, Verdict.UP),
    ):
        vote(completion, bob, verdict)
    vote(tied, admin, Verdict.UP)  # two ups and a down
    first = ended(voted_project, admin)
    vote(changed, bob, Verdict.DOWN)
    vote_undo(completion=alone, by=bob, source=Source.ANNOTATE)
    second = ended(voted_project, admin)
    assert alone.pk in items(first.snapshot)
    assert against.pk not in items(first.snapshot)
    assert items(first.snapshot)[tied.pk][:2] == (True, pytest.approx(1 / 3))

    [erasure] = person_erase(user=bob, by=admin, project=voted_project)

    assert erasure.runs == [first.number, second.number]
    # what was a tie with the admin's vote alone is none
    expected = {pk: row for pk, row in items(without.snapshot).items() if pk != tied.pk}
    assert items(first.snapshot) == items(second.snapshot) == expected


def test_admins_verdict_of_before_stays(
    voted_project: Project, admin: User, bob: User, annotator: User
) -> None:
    # no random sample of the votes, which may hold no up of the test split
    Project.objects.filter(pk=voted_project.pk).update(person_share=100)
    voted_project.refresh_from_db()
    decided, later = voted_project.completions.order_by("pk")[:2]
    for completion in (decided, later):
        vote(completion, bob, Verdict.DOWN)
    adjudication_decide(completion=decided, verdict=Verdict.DOWN, why="Clear.", by=admin)
    run = ended(voted_project, admin)
    adjudication_decide(completion=later, verdict=Verdict.UP, why="Clear.", by=admin)

    person_erase(user=annotator, by=admin, project=voted_project)

    found = items(run.snapshot)
    assert found[decided.pk][:2] == (False, 1.0)
    assert found[later.pk][:2] == (False, 1.0), "Bob's vote of then, not the verdict of later"
    assert set(found) == {decided.pk, later.pk}


def test_files_of_runs_without_a_version_are_removed(
    voted_project: Project, admin: User, annotator: User, settings, tmp_path
) -> None:
    settings.ARTIFACT_ROOT = tmp_path
    run = run_request(project=voted_project, by=admin)
    run.directory.mkdir(parents=True)
    (run.directory / "examples.jsonl").write_text("{}")
    run_cancel(run=run, by=admin)

    [erasure] = person_erase(user=annotator, by=admin, project=voted_project)

    assert not run.directory.exists()
    assert (erasure.runs, erasure.due_at) == ([], None)


def test_copy_of_a_snapshot_has_its_examples_counts_and_time(
    voted_project: Project, admin: User
) -> None:
    snapshot = ended(voted_project, admin).snapshot
    snapshot.items.filter(desirable=True, split="train").first().delete()

    copy = Snapshot.objects.get(pk=snapshot_copy(snapshot).pk)

    assert items(copy) == items(snapshot)
    assert copy.created_at == snapshot.created_at
    assert copy.train_up == snapshot.train_up - 1
    assert (copy.train_down, copy.test_total, copy.validation_total) == (
        snapshot.train_down,
        snapshot.test_total,
        snapshot.validation_total,
    )


def test_snapshot_that_waits_for_a_worker_gets_no_examples_by_an_erasure(
    voted_project: Project, admin: User, bob: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tie becomes an example without Bob; the snapshot takes it once, from the project."""
    Project.objects.filter(pk=voted_project.pk).update(person_share=100)
    voted_project.refresh_from_db()
    tied = voted_project.completions.filter(example__desirable=False).first()
    assert tied is not None
    vote(tied, bob, Verdict.UP)
    monkeypatch.setattr(services, "AT_ONCE", 5)
    run = run_request(project=voted_project, by=admin)

    person_erase(user=bob, project=voted_project, by=admin)

    assert not run.snapshot.items.exists()
    assert snapshot_take(run.snapshot_id)
    assert run.snapshot.items.filter(completion=tied).count() == 1
