"""What may be deleted, and that nothing else is."""

import datetime as dt
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from django.utils import timezone
from pytest_django import Settings

from feedback_app.accounts.models import AuditEvent, User
from feedback_app.artifacts import artifact_store
from feedback_app.feedback.models import ImportJob, Project
from feedback_app.monitoring.retention import services
from feedback_app.monitoring.retention.rules import Deletable, deletable, sentences, size_of
from feedback_app.monitoring.retention.services import (
    cleanup_execute,
    cleanup_last,
    cleanup_request,
    entry_delete,
)
from feedback_app.serving.models import Release, TrafficSplit
from feedback_app.training.models import Adapter, Run, Snapshot, Sweep
from feedback_app.training.registry.download import adapter_files
from feedback_app.training.registry.services import adapter_restore
from feedback_app.training.runs.services import run_resume
from feedback_app.training.sweeps.services import trial_choose
from feedback_app.web.errors import Conflict, UserError

pytestmark = pytest.mark.django_db

KB = 8192
MakeRun = Callable[..., Run]


@pytest.fixture(autouse=True)
def root(settings: Settings, tmp_path: Path) -> Path:
    settings.ARTIFACT_ROOT = tmp_path
    return tmp_path


@pytest.fixture
def make_run(project: Project) -> MakeRun:
    """`make_run("failed", days=8)`: a run that ended so many days ago, with checkpoints."""

    def make(status: str, *, days: float = 100, config: dict[str, str] | None = None) -> Run:
        ended = timezone.now() - dt.timedelta(days=days)
        run = Run.objects.create(
            project=project,
            number=project.runs.count() + 1,
            snapshot=Snapshot.objects.create(project=project, train_up=1, train_down=1),
            trigger="person",
            status=status,
            config=config or {},
            finished_at=None if status in Run.ACTIVE else ended,
        )
        write(run.directory / "checkpoints" / "step-1" / "weights")
        write(run.directory / "events.jsonl")
        return run

    return make


@pytest.fixture
def make_version(make_run: MakeRun) -> Callable[..., Adapter]:
    """`make_version(discarded=40)`: a version that was discarded so many days ago, with files."""

    def make(*, discarded: float | None) -> Adapter:
        run = make_run("succeeded")
        name = run.project.adapter_name(run.number)
        since = None if discarded is None else timezone.now() - dt.timedelta(days=discarded)
        adapter = Adapter.objects.create(
            project=run.project, run=run, name=name, path=f"adapters/{name}", sha256="0" * 64,
            discarded_at=since,
        )  # fmt: skip
        write(run.directory / "adapter" / "weights")
        adapter.directory.mkdir(parents=True)
        os.link(run.directory / "adapter" / "weights", adapter.directory / "weights")
        return adapter

    return make


def write(path: Path, *, days: float = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * KB)
    age(path, days)
    return path


def age(path: Path, days: float) -> None:
    then = (timezone.now() - dt.timedelta(days=days)).timestamp()
    os.utime(path, (then, then))


def found() -> dict[str, set[str]]:
    """Return what may be deleted, by rule."""
    by_rule: dict[str, set[str]] = {}
    for entry in deletable():
        by_rule.setdefault(entry.rule, set()).update(str(path) for path in entry.paths)
    return by_rule


# -- the rules


def test_checkpoints_of_ended_runs(make_run: MakeRun, settings: Settings) -> None:
    done, fresh = make_run("succeeded", days=2), make_run("succeeded", days=0.5)
    failed, cancelled = make_run("failed", days=8), make_run("cancelled", days=8)
    for status, days in (("failed", 6), ("cancelled", 6), ("queued", 0)):
        make_run(status, days=days)
    expected = {str(run.directory / "checkpoints") for run in (done, failed, cancelled)}
    assert found() == {"checkpoints": expected}
    settings.CHECKPOINT_DAYS = 0
    assert found() == {"checkpoints": {str(done.directory / "checkpoints")}}
    assert "Those of others are kept." in sentences()[0]
    assert fresh.directory.exists()


def test_copies_of_reproductions_and_uploads_without_an_import(
    project: Project, admin: User, root: Path
) -> None:
    write(root / "runs" / "7-again" / "weights")
    age(root / "runs" / "7-again" / "weights", 2)
    age(root / "runs" / "7-again", 2)
    write(root / "runs" / "8-again" / "weights")
    # it trains for two days, and writes to its events
    write(root / "runs" / "9-again" / "events.jsonl")
    age(root / "runs" / "9-again", 2)
    lost = write(root / "imports" / "lost", days=2)
    write(root / "imports" / "arriving")
    for status in ("preview", "queued", "running", "done"):
        path = write(root / "imports" / status, days=2)
        job = ImportJob.objects.create(
            project=project, by=admin, name="f", path=str(path), uploaded=True, status="preview"
        )
        # one import of a project is active at a time
        ImportJob.objects.filter(pk=job.pk).update(status=status if status == "done" else "preview")
    assert found() == {
        "reproductions": {str(root / "runs" / "7-again")},
        "imports": {str(lost), str(root / "imports" / "done")},
    }


def test_files_of_imported_versions_that_no_run_will_read(
    make_run: MakeRun, root: Path, settings: Settings
) -> None:
    def imported(name: str, status: str, *, days: float, resumable: bool = True) -> None:
        run = make_run(status, days=days, config={"imported": f"imported/{name}"})
        Run.objects.filter(pk=run.pk).update(trigger="imported", resumable=resumable)
        write(root / "imported" / name / "weights")
        write(root / "imported" / f".{name}.generation", days=20)
        age(root / "imported" / name, 20)

    imported("waits", "queued", days=0)
    imported("lately", "failed", days=2)
    imported("hopeless", "failed", days=2, resumable=False)
    imported("old", "cancelled", days=8)
    write(root / "imported" / "lost" / "weights")
    age(root / "imported" / "lost", 2)
    write(root / "imported" / "arriving" / "weights")

    gone = {str(root / "imported" / name) for name in ("hopeless", "old", "lost")}
    assert found()["imported"] == gone
    settings.CHECKPOINT_DAYS = 0
    assert found()["imported"] == gone - {str(root / "imported" / "old")}


def test_files_of_an_imported_version_leave_the_artifact_store_too(
    root: Path, admin: User, settings: Settings
) -> None:
    settings.ARTIFACT_URL = "memory://retention-imported"
    write(root / "imported" / "lost" / "weights")
    artifact_store().push("imported/lost")
    age(root / "imported" / "lost", 2)

    assert cleanup_execute(by=admin).freed == KB

    assert not (root / "imported" / "lost").exists()
    assert not artifact_store().has("imported/lost")


def test_files_of_versions_that_were_discarded_long_ago_and_never_used(
    make_version: Callable[..., Adapter], make_run: MakeRun, settings: Settings
) -> None:
    settings.CHECKPOINT_DAYS = 0
    old = make_version(discarded=31)
    for kept in (29, None):
        make_version(discarded=kept)
    was_live, in_split, start, locked, live = (make_version(discarded=99) for _ in range(5))
    Release.objects.create(project=was_live.project, adapter=was_live, live=False)
    TrafficSplit.objects.create(
        project=in_split.project, candidate=in_split, live_version="base", percent=5,
        status="stopped", ended_at=timezone.now(),
    )  # fmt: skip
    make_run("failed", days=0, config={"start_adapter": f"../../{start.path}"})
    Adapter.objects.filter(pk=locked.pk).update(locked_at=timezone.now())
    Project.objects.filter(pk=live.project_id).update(live_version=live.name)

    assert found()["versions"] == {str(old.directory), str(old.run.directory / "adapter")}
    settings.DISCARDED_DAYS = 0
    assert "versions" not in found()
    assert "Files of discarded versions are kept." in sentences()


@pytest.fixture
def make_sweep(project: Project, make_run: MakeRun) -> Callable[..., tuple[Sweep, list[Run]]]:
    """`make_sweep(ended=3)`: a sweep that ended so many days ago, with two trained trials."""

    def make(*, ended: float | None) -> tuple[Sweep, list[Run]]:
        runs = [make_run("trained", days=ended or 0) for _ in range(2)]
        since = None if ended is None else timezone.now() - dt.timedelta(days=ended)
        sweep = Sweep.objects.create(
            project=project, number=project.sweeps.count() + 1, snapshot=runs[0].snapshot,
            method="grid", max_hours=1, ended_at=since,
        )  # fmt: skip
        for run in runs:
            Run.objects.filter(pk=run.pk).update(sweep=sweep, evaluates=False)
            write(run.directory / "adapter" / "weights")
        return sweep, runs

    return make


def judged(run: Run, *, days: float) -> Adapter:
    """Make a trial the chosen one of its sweep, which the gate judged so many days ago."""
    then = timezone.now() - dt.timedelta(days=days)
    Run.objects.filter(pk=run.pk).update(evaluates=True, status="succeeded", finished_at=then)
    name = run.project.adapter_name(run.number)
    return Adapter.objects.create(
        project=run.project, run=run, name=name, path=f"adapters/{name}", sha256="0" * 64
    )


def test_adapters_of_trials_that_were_not_chosen(
    make_sweep: Callable[..., tuple[Sweep, list[Run]]], settings: Settings
) -> None:
    settings.CHECKPOINT_DAYS = 0
    _, old = make_sweep(ended=31)
    make_sweep(ended=29)
    _, (chosen, other) = make_sweep(ended=3)
    judged(chosen, days=2)
    _, (lately, _) = make_sweep(ended=3)
    judged(lately, days=0.5)
    # chosen long ago, and the gate has not judged it: it may be resumed
    _, (failed, _) = make_sweep(ended=99)
    Run.objects.filter(pk=failed.pk).update(evaluates=True, status="failed")
    open_sweep, _ = make_sweep(ended=None)

    assert found()["trials"] == {str(run.directory / "adapter") for run in (*old, other)}
    settings.DISCARDED_DAYS = 0
    assert found()["trials"] == {str(other.directory / "adapter")}
    assert "those of a sweep of which none was are kept." in " ".join(sentences())
    assert open_sweep.ended_at is None


# -- deleting


def test_everything_that_may_be_deleted_is_and_nothing_else(
    make_run: MakeRun, make_version: Callable[..., Adapter], admin: User, root: Path
) -> None:
    kept, failed = make_version(discarded=None), make_run("failed", days=8)
    gone = make_version(discarded=31)
    expected = size_of(path for entry in deletable() for path in entry.paths)

    result = cleanup_execute(by=admin)

    # checkpoints of three runs, and the version with its link in the run's directory once
    assert (result.state, result.done, result.total) == ("done", 4, 4)
    assert result.freed == expected == 4 * KB
    assert list(deletable()) == []
    left = sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())
    assert left == sorted(
        [
            f"{kept.path}/weights",
            f"runs/{kept.run_id}/adapter/weights",
            *(f"runs/{run.pk}/events.jsonl" for run in (kept.run, failed, gone.run)),
        ]
    )
    event = AuditEvent.objects.get(action="adapter.expire")
    assert (event.actor, event.target, event.project) == (admin, gone.name, gone.project)
    assert cleanup_execute(by=admin).total == 0, "it can be repeated"


def test_adapter_of_a_trial_is_deleted_and_the_chosen_one_is_not(
    make_sweep: Callable[..., tuple[Sweep, list[Run]]], admin: User
) -> None:
    _, (chosen, other) = make_sweep(ended=3)
    judged(chosen, days=2)
    # as the other one will be, if the deletion is killed before its files are gone
    Run.objects.filter(pk=other.pk).update(adapter_deleted_at=timezone.now())

    cleanup_execute(by=admin)

    assert not (other.directory / "adapter").exists()
    assert (other.directory / "events.jsonl").exists()
    assert (chosen.directory / "adapter" / "weights").exists()
    other.refresh_from_db()
    assert other.adapter_deleted_at is not None
    assert list(deletable()) == []


def test_trial_that_is_chosen_meanwhile_keeps_its_adapter(
    make_sweep: Callable[..., tuple[Sweep, list[Run]]], admin: User
) -> None:
    sweep, (one, other) = make_sweep(ended=31)
    Run.objects.filter(pk=one.pk).update(probes=[[1, 0.5, 0.5]])
    entries = [entry for entry in deletable() if entry.rule == "trials"]
    trial_choose(sweep=sweep, run=one, by=admin)
    assert [entry_delete(entry, by=admin) for entry in entries] == [0, 0]
    for run in (one, other):
        assert (run.directory / "adapter" / "weights").exists()
        run.refresh_from_db()
        assert run.adapter_deleted_at is None


def test_adapter_of_a_trial_leaves_the_artifact_store_too(
    make_sweep: Callable[..., tuple[Sweep, list[Run]]], admin: User, settings: Settings
) -> None:
    settings.ARTIFACT_URL = "memory://retention"
    _, (here, elsewhere) = make_sweep(ended=31)
    store = artifact_store()
    for run in (here, elsewhere):
        store.push(run.tree, 2, leave_out=("checkpoints",))
    shutil.rmtree(elsewhere.directory)  # a trial of another host

    assert cleanup_execute(by=admin).total == 3  # with the checkpoints that are here

    for run in (here, elsewhere):
        shutil.rmtree(run.directory, ignore_errors=True)
        files = sorted(path.name for path in store.fetch(run.tree).iterdir())
        assert files == ["events.jsonl"]
    assert list(deletable()) == []


def test_version_leaves_the_artifact_store_too(
    make_version: Callable[..., Adapter], admin: User, settings: Settings
) -> None:
    settings.ARTIFACT_URL = "memory://retention-versions"
    here, elsewhere, kept = (make_version(discarded=days) for days in (31, 31, 29))
    store = artifact_store()
    for adapter in (here, elsewhere, kept):
        store.push(adapter.path)
        store.push(adapter.run.tree, 1, leave_out=("checkpoints",))
    shutil.rmtree(elsewhere.directory)  # a version of another host
    shutil.rmtree(elsewhere.run.directory)

    cleanup_execute(by=admin)

    for adapter in (here, elsewhere):
        adapter.refresh_from_db()
        assert adapter.deleted_at is not None
        assert not store.has(adapter.path)
        shutil.rmtree(adapter.run.directory, ignore_errors=True)
        assert [path.name for path in store.fetch(adapter.run.tree).iterdir()] == ["events.jsonl"]
    assert store.has(kept.path)
    assert "versions" not in found()


def test_version_without_files_cannot_be_restored_or_downloaded(
    make_version: Callable[..., Adapter], admin: User
) -> None:
    adapter = make_version(discarded=31)
    cleanup_execute(by=admin)
    adapter.refresh_from_db()
    assert adapter.deleted_at is not None
    for use in (lambda: adapter_restore(adapter=adapter, by=admin), lambda: adapter_files(adapter)):
        with pytest.raises(UserError, match="were deleted some time after it was discarded"):
            use()


def test_what_is_needed_again_meanwhile_stays(
    make_run: MakeRun, make_version: Callable[..., Adapter], admin: User
) -> None:
    run, adapter = make_run("failed", days=8), make_version(discarded=31)
    entries = {entry.rule: entry for entry in deletable() if entry.run in (None, run.pk)}
    run_resume(run=run, by=admin)
    adapter_restore(adapter=adapter, by=admin)
    assert [entry_delete(entries[rule], by=admin) for rule in ("checkpoints", "versions")] == [0, 0]
    assert (run.directory / "checkpoints").is_dir()
    assert (adapter.directory / "weights").is_file()


def test_deletion_that_was_killed_is_finished_by_the_next(
    make_version: Callable[..., Adapter], admin: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = make_version(discarded=31)

    def killed(paths: tuple[Path, ...]) -> int:
        raise SystemExit

    with monkeypatch.context() as patched, pytest.raises(SystemExit):
        patched.setattr(services, "paths_delete", killed)
        cleanup_execute(by=admin)
    assert adapter.directory.is_dir()
    cleanup_execute(by=admin)
    assert not adapter.directory.exists()
    assert AuditEvent.objects.filter(action="adapter.expire").count() == 1


def test_one_cleanup_at_a_time_unless_it_was_lost(
    admin: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    cleanup_request(by=admin)
    with pytest.raises(Conflict):
        cleanup_request(by=admin)
    state = cleanup_last()
    assert state is not None
    assert state.active
    monkeypatch.setattr(services, "LOST_SECONDS", 0.0)
    cleanup_request(by=admin)


def test_path_that_is_gone_already_is_no_error(make_run: MakeRun, root: Path) -> None:
    run = make_run("failed", days=8)
    entries = list(deletable())
    cleanup_execute(by=None)
    assert [entry_delete(entry, by=None) for entry in entries] == [0]
    assert entry_delete(Deletable("imports", (root / "imports" / "none",)), by=None) == 0
    assert run.directory.is_dir()
