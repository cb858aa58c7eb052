"""Snapshots of large projects are taken by a worker, once, after the request."""

import datetime as dt
import threading
from collections.abc import Callable
from unittest.mock import patch

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from feedback_app.accounts.models import User
from feedback_app.feedback.models import Example, Pause, Project, Source, Verdict
from feedback_app.feedback.votes.services import vote_cast, vote_undo
from feedback_app.training.adapter_import.services import gate_snapshot
from feedback_app.training.models import Erasure, Run, Snapshot, SnapshotItem
from feedback_app.training.runs.claims import run_claim
from feedback_app.training.runs.config import RunConfig
from feedback_app.training.runs.execution import taking
from feedback_app.training.runs.execution.taking import snapshot_take, snapshots_due
from feedback_app.training.runs.services import run_cancel, run_request, run_resume
from feedback_app.training.runs.waiting import place_of, run_claim_next
from feedback_app.training.snapshots import services
from feedback_app.training.sweeps.services import Search, sweep_request, sweeps_advance
from feedback_app.web.errors import UserError
from tests.conftest import MakeCompletions, hand_out
from tests.engines import PATIENCE

pytestmark = pytest.mark.django_db
on_sqlite = pytest.mark.skipif(
    connection.vendor != "sqlite", reason="written in one transaction elsewhere"
)

As = Callable[[User], Client]


@pytest.fixture(autouse=True)
def few_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every project is a large one here."""
    monkeypatch.setattr(services, "AT_ONCE", 5)


@pytest.fixture
def run(voted_project: Project, admin: User) -> Run:
    return run_request(project=voted_project, by=admin)


def taken(run: Run) -> Run:
    assert snapshot_take(run.snapshot_id)
    return Run.objects.select_related("snapshot").get(pk=run.pk)


def page_of(run: Run, client: Client) -> str:
    return client.get(reverse("run", args=[run.project.slug, run.number])).content.decode()


def test_request_copies_nothing_and_a_worker_takes_the_snapshot(run: Run, admin: User) -> None:
    assert run.status == Run.Status.QUEUED
    assert not SnapshotItem.objects.exists()
    assert list(snapshots_due()) == [run.snapshot]
    found = taken(run)
    assert found.snapshot.items.count() == Example.objects.count() == 60
    assert found.snapshot.train_total == found.snapshot.items.filter(split="train").count()
    assert found.snapshot.test_total == found.snapshot.items.filter(split="test").count()
    assert found.forecast["minutes"] > 0
    assert not snapshots_due().exists()
    assert run_claim(run.pk) is not None


def test_small_project_has_its_snapshot_with_the_answer(
    voted_project: Project, admin: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(services, "AT_ONCE", 60)
    run = run_request(project=voted_project, by=admin)
    assert run.snapshot.taken
    assert run.snapshot.items.count() == 60
    assert not snapshots_due().exists()


def test_request_makes_as_many_queries_for_any_number_of_examples(
    voted_project: Project, admin: User, annotator: User, make_completions: MakeCompletions
) -> None:
    def queries() -> int:
        with CaptureQueriesContext(connection) as seen:
            run = run_request(project=voted_project, by=admin)
        run_cancel(run=run, by=admin)
        return len(seen)

    before = queries()
    more = make_completions(40)
    hand_out(annotator, *more)
    for completion in more:
        vote_cast(completion=completion, verdict=Verdict.UP, by=annotator, source=Source.ANNOTATE)
    assert Example.objects.count() == 100
    assert queries() == before
    assert before < 25


def test_snapshot_follows_from_the_votes_of_when_it_is_taken(run: Run, annotator: User) -> None:
    example = Example.objects.filter(desirable=False).first()
    assert example is not None
    vote_cast(
        completion=example.completion, verdict=Verdict.UP, by=annotator, source=Source.ANNOTATE
    )
    found = taken(run)
    assert found.snapshot.items.get(completion=example.completion).desirable
    assert found.snapshot.created_at > run.created_at


def test_run_waits_for_its_snapshot_and_no_gpu_worker_takes_it(run: Run) -> None:
    assert run_claim_next() is None
    assert run_claim(run.pk) is None
    assert place_of(run) is None
    taken(run)
    assert place_of(run) is not None
    assert run_claim_next() is not None


def test_two_workers_take_one_snapshot(run: Run) -> None:
    freeze, second = services.snapshot_freeze, []

    def meanwhile(**arguments: object) -> Snapshot:
        second.append(snapshot_take(run.snapshot_id))
        return freeze(**arguments)  # type: ignore[arg-type]

    with patch.object(taking, "snapshot_freeze", meanwhile):
        taken(run)
    assert second == [False]
    assert not snapshot_take(run.snapshot_id)
    assert SnapshotItem.objects.count() == 60


def test_after_a_crash_another_worker_takes_it_from_the_beginning(run: Run) -> None:
    with (
        patch.object(taking, "snapshot_keep_test", side_effect=AssertionError),
        patch.object(taking, "waiting_runs", crash_after_copying()),
        pytest.raises(MemoryError),
    ):
        snapshot_take(run.snapshot_id)
    assert not SnapshotItem.objects.exists()
    assert not snapshot_take(run.snapshot_id)  # its heartbeat may still come
    Snapshot.objects.update(heartbeat_at=timezone.now() - dt.timedelta(hours=1))
    assert list(snapshots_due()) == [run.snapshot]
    assert taken(run).snapshot.items.count() == 60


def crash_after_copying() -> Callable[[Snapshot], object]:
    """Return `waiting_runs`, which fails at its second call: when the examples are copied."""
    original, calls = taking.waiting_runs, iter([False, True])

    def once(snapshot: Snapshot) -> object:
        if next(calls):
            assert SnapshotItem.objects.exists()
            raise MemoryError
        return original(snapshot)

    return once


def test_worker_that_has_lost_its_claim_leaves_nothing(run: Run) -> None:
    freeze = services.snapshot_freeze

    def slow(**arguments: object) -> Snapshot:
        Snapshot.objects.update(attempt=7)
        return freeze(**arguments)  # type: ignore[arg-type]

    with patch.object(taking, "snapshot_freeze", slow):
        assert not snapshot_take(run.snapshot_id)
    assert not SnapshotItem.objects.exists()


def test_cancelled_run_has_no_snapshot_taken_until_it_is_resumed(run: Run, admin: User) -> None:
    run_cancel(run=run, by=admin)
    assert not snapshots_due().exists()
    assert not snapshot_take(run.snapshot_id)
    assert not SnapshotItem.objects.exists()
    run.refresh_from_db()
    run_resume(run=run, by=admin)
    assert list(snapshots_due()) == [run.snapshot]
    assert taken(run).snapshot.items.count() == 60


def test_run_that_is_cancelled_meanwhile_keeps_no_examples(run: Run, admin: User) -> None:
    freeze = services.snapshot_freeze

    def meanwhile(**arguments: object) -> Snapshot:
        Run.objects.update(status=Run.Status.CANCELLED)
        return freeze(**arguments)  # type: ignore[arg-type]

    with patch.object(taking, "snapshot_freeze", meanwhile):
        assert not snapshot_take(run.snapshot_id)
    assert not SnapshotItem.objects.exists()


def test_snapshot_waits_for_an_erasure_and_is_taken_again_after_one(
    run: Run, annotator: User
) -> None:
    erasures = Erasure.objects
    erasures.create(project=run.project, person=annotator.pk, account=False)
    assert not snapshots_due().exists()
    assert not snapshot_take(run.snapshot_id)
    erasures.update(finished_at=timezone.now() + dt.timedelta(hours=1))  # while it is taken
    assert not snapshot_take(run.snapshot_id)
    assert not SnapshotItem.objects.exists()
    erasures.update(finished_at=timezone.now())
    assert list(snapshots_due()) == [run.snapshot]
    assert taken(run).snapshot.items.count() == 60


def test_run_without_enough_examples_fails_with_the_words_of_the_refusal(
    run: Run, admin: User, as_user: As
) -> None:
    Example.objects.update(desirable=True)
    assert not snapshot_take(run.snapshot_id)
    run.refresh_from_db()
    assert run.status == Run.Status.FAILED
    assert "0 down: KTO needs at least 4 of each to learn the difference." in run.error
    assert "Annotate more answers." in run.error
    assert run.notes.get(level="error").text == run.error
    assert not SnapshotItem.objects.exists()
    assert "no snapshot yet" in " ".join(page_of(run, as_user(admin)).split())
    # with votes that are enough it can be resumed
    Example.objects.filter(pk__in=list(Example.objects.values_list("pk", flat=True)[::2])).update(
        desirable=False
    )
    run_resume(run=run, by=admin)
    assert taken(run).snapshot.train_down >= 4


def test_workers_that_keep_dying_end_the_run(run: Run) -> None:
    Snapshot.objects.update(attempt=taking.MAX_CLAIMS)
    assert not snapshot_take(run.snapshot_id)
    run.refresh_from_db()
    assert run.error == "10 attempts in a row to take the snapshot failed."


def test_archived_project_and_second_run_are_refused_at_once(
    run: Run, voted_project: Project, admin: User
) -> None:
    with pytest.raises(UserError, match="Run 1 is in progress"):
        run_request(project=voted_project, by=admin)
    run_cancel(run=run, by=admin)
    Project.objects.update(archived_at=timezone.now())
    with pytest.raises(UserError, match="archived"):
        run_request(project=voted_project, by=admin)


def test_project_that_is_archived_meanwhile_ends_the_run(run: Run) -> None:
    Project.objects.update(archived_at=timezone.now())
    assert not snapshot_take(run.snapshot_id)
    run.refresh_from_db()
    assert "archived" in run.error


def test_pages_say_that_the_snapshot_is_being_taken(run: Run, admin: User, as_user: As) -> None:
    client = as_user(admin)
    text = " ".join(page_of(run, client).split())
    assert "Taking the snapshot: the run learns from the votes as they are when it is taken" in text
    assert "0 up" not in text
    assert "Waiting for a GPU worker" not in text
    listed = client.get(reverse("runs", args=[run.project.slug])).content.decode()
    assert "taking the snapshot" in listed
    taken(run)
    assert "Waiting for a GPU worker" in page_of(run, client)


@pytest.fixture
def wide(project: Project) -> Project:
    """A project with enough validation prompts among sixty for a sweep."""
    project.validation_percent = 30
    project.save()
    return project


def test_trials_of_a_sweep_wait_for_one_snapshot(
    wide: Project, voted_project: Project, admin: User
) -> None:
    search = Search(space={"learning_rate": (1e-5, 1e-4)})
    sweep = sweep_request(project=voted_project, by=admin, base=RunConfig(), search=search)
    assert sweep.forecast == {}
    assert run_claim_next() is None
    assert snapshot_take(sweep.snapshot_id)
    sweep.refresh_from_db()
    assert sweep.forecast["minutes"] > 0
    assert Snapshot.objects.get().items.count() == 60
    assert {run.snapshot_id for run in sweep.trials.all()} == {sweep.snapshot_id}
    assert run_claim_next() is not None


def test_sweep_over_its_hours_ends_when_the_examples_are_counted(
    voted_project: Project, admin: User
) -> None:
    search = Search(space={"learning_rate": (1e-5, 1e-4)}, max_hours=0.1)
    base = RunConfig(epochs=20)
    sweep = sweep_request(project=voted_project, by=admin, base=base, search=search)
    assert not snapshot_take(sweep.snapshot_id)
    assert {run.status for run in sweep.trials.all()} == {Run.Status.FAILED}
    assert "more than the 0.1 that this sweep may take" in sweep.trials.all()[0].error
    sweeps_advance()
    sweep.refresh_from_db()
    assert sweep.ended_at is not None


def test_imported_version_gets_the_test_examples_only(voted_project: Project, admin: User) -> None:
    snapshot = gate_snapshot(voted_project)
    assert not snapshot.taken
    run = Run.objects.create(
        project=voted_project,
        number=1,
        snapshot=snapshot,
        config=RunConfig().as_json(),
        trigger=Run.Trigger.IMPORTED,
    )
    found = taken(run)
    assert set(found.snapshot.items.values_list("split", flat=True)) == {"test"}
    assert found.snapshot.train_total == found.snapshot.validation_total == 0
    assert found.snapshot.test_total == found.snapshot.items.count() > 0


# -- in pieces, on SQLite


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(taking, "PIECE_ROWS", 7)


@pytest.mark.django_db(transaction=True)
def test_people_vote_while_a_snapshot_is_taken(
    voted_project: Project,
    admin: User,
    second_annotator: User,
    make_completions: MakeCompletions,
    small_pieces: None,
) -> None:
    run = run_request(project=voted_project, by=admin)
    [answer] = make_completions(1)
    hand_out(second_annotator, answer)
    copied, voted = [], []
    copy, apply = services.items_copy, services.cap_apply

    def counted(project: Project, *, snapshot: Snapshot, after: int, upto: int) -> None:
        copied.append((after, upto))
        copy(project, snapshot=snapshot, after=after, upto=upto)

    def vote() -> None:
        try:
            vote_cast(
                completion=answer, verdict=Verdict.UP, by=second_annotator, source=Source.ANNOTATE
            )
            voted.append(answer)
        finally:
            connection.close()

    def meanwhile(*arguments: object) -> None:
        voter = threading.Thread(target=vote)
        voter.start()
        voter.join(PATIENCE / 4)
        assert voted, "the vote waits for the snapshot"
        apply(*arguments)  # type: ignore[arg-type]

    with (
        patch.object(services, "items_copy", counted),
        patch.object(services, "cap_apply", meanwhile),
    ):
        found = taken(run).snapshot

    assert found.items.count() == 60
    assert found.train_total + found.validation_total + found.test_total == 60
    assert len(copied) == (9 if connection.vendor == "sqlite" else 1)


@on_sqlite
def test_vote_that_is_undone_after_it_was_copied_is_not_in_the_snapshot(
    run: Run, annotator: User, second_annotator: User, small_pieces: None
) -> None:
    """When its person is erased, nobody looks for it there."""
    Project.objects.update(person_share=100)
    undone, aside, kept = Example.objects.filter(split="train").order_by("pk")[:3]
    for example in (undone, aside, kept):
        hand_out(second_annotator, example.completion)
        vote_cast(
            completion=example.completion,
            verdict=Verdict.UP if example.desirable else Verdict.DOWN,
            by=second_annotator,
            source=Source.ANNOTATE,
        )
    apply = services.cap_apply

    def meanwhile(*arguments: object) -> None:
        vote_undo(completion=undone.completion, by=second_annotator, source=Source.ANNOTATE)
        pause = Pause.objects.create(project=run.project, user=second_annotator, right=0, of=3)
        second_annotator.votes.filter(completion=aside.completion).update(set_aside=pause)
        apply(*arguments)  # type: ignore[arg-type]

    with patch.object(services, "cap_apply", meanwhile):
        found = taken(run).snapshot

    copied = set(found.items.values_list("completion", flat=True))
    assert copied == set(Example.objects.values_list("pk", flat=True)) - {undone.pk, aside.pk}
    assert found.train_total == found.items.filter(split="train").count()


@on_sqlite
def test_what_a_killed_worker_has_written_is_not_in_the_snapshot(
    run: Run, small_pieces: None, make_completions: MakeCompletions
) -> None:
    half = [*Example.objects.values_list("pk", flat=True)[:20], make_completions(1)[0].pk]
    SnapshotItem.objects.bulk_create(
        services.item(run.snapshot, pk, "train", desirable=True, weight=0.5) for pk in half
    )
    found = taken(run).snapshot
    assert dict(found.items.values_list("completion", "weight")) == dict(
        Example.objects.values_list("pk", "weight")
    )


@on_sqlite
def test_worker_that_was_taken_over_writes_nothing_more(run: Run, small_pieces: None) -> None:
    apply, second = services.cap_apply, []

    def meanwhile(*arguments: object) -> None:
        if not second:
            second.append(False)
            Snapshot.objects.update(heartbeat_at=timezone.now() - dt.timedelta(hours=1))
            second[0] = snapshot_take(run.snapshot_id)
        apply(*arguments)  # type: ignore[arg-type]

    with patch.object(services, "cap_apply", meanwhile):
        assert not snapshot_take(run.snapshot_id)
    assert second == [True]
    assert SnapshotItem.objects.count() == 60
    assert Snapshot.objects.get().taken


@on_sqlite
def test_worker_that_was_taken_over_and_fails_deletes_nothing(run: Run, small_pieces: None) -> None:
    count, second = taking.snapshot_totals, []

    def meanwhile(*arguments: object) -> object:
        if second:
            return count(*arguments)  # type: ignore[arg-type]
        second.append(False)
        Snapshot.objects.update(heartbeat_at=timezone.now() - dt.timedelta(hours=1))
        second[0] = snapshot_take(run.snapshot_id)
        raise MemoryError

    with patch.object(taking, "snapshot_totals", meanwhile), pytest.raises(MemoryError):
        snapshot_take(run.snapshot_id)
    assert second == [True]
    assert SnapshotItem.objects.count() == 60
