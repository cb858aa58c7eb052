"""A backup is of one moment, a damaged one changes nothing, and a restored installation goes on."""

import errno
import gzip
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from allauth.mfa.models import Authenticator
from allauth.mfa.recovery_codes.internal.auth import RecoveryCodes
from allauth.mfa.totp.internal.auth import TOTP
from django.apps import apps
from django.conf import settings
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.operations import (
    AddConstraint,
    AddField,
    AddIndex,
    AlterField,
    CreateModel,
)
from django.db.migrations.operations.base import Operation
from django.db.migrations.recorder import MigrationRecorder
from django.utils import timezone
from pytest_django import Settings

from feedback_app.accounts.models import User
from feedback_app.accounts.sealing import seal, unseal
from feedback_app.feedback.examples.services import examples_refresh
from feedback_app.feedback.imports.files import file_fetch
from feedback_app.feedback.imports.uploads import upload_keep
from feedback_app.feedback.models import (
    Completion,
    Example,
    ImportJob,
    Project,
    Source,
    Verdict,
    Vote,
    Webhook,
)
from feedback_app.feedback.votes.services import vote_cast
from feedback_app.operations.backup import artifacts, tables
from feedback_app.operations.backup.manifest import BackedUpFile, BackupError
from feedback_app.operations.backup.services import backup_make, backup_restore, tables_all
from feedback_app.operations.backup.tables import file_of
from feedback_app.training.launchers.child_process import ProcessLauncher
from feedback_app.training.models import Adapter, Judge, Run
from feedback_app.training.registry.files import manifest_check
from feedback_app.training.runs.claims import run_claim
from feedback_app.training.runs.config import RunConfig
from feedback_app.training.runs.execution.sequence import run_execute
from feedback_app.training.runs.services import run_request
from tests.operations.world import adapter_write
from tests.s3 import Bucket

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("migrations_recorded"),
    pytest.mark.slow,
]
Make = Callable[..., list[Completion]]


def quiet(text: str) -> None:
    """Show nothing."""


@pytest.fixture
def root(tmp_path: Path, settings: Settings) -> Path:
    settings.ARTIFACT_ROOT = tmp_path / "artifacts"
    return tmp_path / "artifacts"


@pytest.fixture
def adapter(voted_project: Project, admin: User, root: Path) -> Adapter:
    """A project with votes, a finished run with its files, and an adapter."""
    run = run_request(project=voted_project, by=admin)
    directory = root / "runs" / str(run.pk)
    (directory / "checkpoints").mkdir(parents=True)
    (directory / "events.jsonl").write_text("{}\n")
    (directory / "config.json.partial").write_text("half")
    (directory / "checkpoints" / "state").write_text("no longer needed")
    Webhook.objects.create(
        project=voted_project, url="https://example.com", secret=seal("hook"), created_by=admin
    )
    Judge.objects.create(
        project=voted_project, url="https://example.com/v1", model="m", api_key=seal("sk-judge")
    )
    return adapter_write(run, root)


def contents() -> dict[str, list[Any]]:
    """Return every row of every table."""
    return {
        model._meta.db_table: list(model._base_manager.order_by("pk").values())
        for model in tables_all()
    }


def files_in(directory: Path) -> set[str]:
    return {str(p.relative_to(directory)) for p in directory.rglob("*") if p.is_file()}


def empty_installation(root: Path, *, migrated: bool = False) -> None:
    """Empty database and artifacts; with `migrated`, keep the rows that `migrate` creates."""
    call_command("flush", verbosity=0, interactive=False, inhibit_post_migrate=not migrated)
    shutil.rmtree(root, ignore_errors=True)


def nothing_changed(root: Path) -> bool:
    return not User.objects.exists() and not Project.objects.exists() and not files_in(root)


@pytest.fixture
def backup(adapter: Adapter, root: Path, tmp_path: Path) -> Path:
    """A backup, and an empty installation to restore it into."""
    backup_make(directory=tmp_path / "backup", say=quiet)
    empty_installation(root)
    return tmp_path / "backup"


# -- the round trip


def test_restored_rows_and_artifacts_are_the_same(
    adapter: Adapter, root: Path, tmp_path: Path
) -> None:
    rows = contents()
    assert sum(map(len, rows.values())) > 400
    backup_make(directory=tmp_path / "backup", say=quiet)
    empty_installation(root, migrated=True)

    backup_restore(directory=tmp_path / "backup", say=quiet)

    assert contents() == rows
    assert manifest_check(Adapter.objects.get().directory, name=adapter.name)
    assert files_in(root) == {
        f"runs/{adapter.run_id}/events.jsonl",
        f"adapters/{adapter.name}/adapter_model.safetensors",
        f"adapters/{adapter.name}/adapter_config.json",
        f"adapters/{adapter.name}/manifest.json",
    }
    assert unseal(Webhook.objects.get().secret) == "hook"
    assert unseal(Judge.objects.get().api_key) == "sk-judge"


def test_restored_installation_goes_on(backup: Path, make_completions: Make) -> None:
    backup_restore(directory=backup, say=quiet)

    annotator, admin = User.objects.get(name="Ann Otator"), User.objects.get(name="Ada Admin")
    project = Project.objects.get()
    last_vote, last_run = (m.objects.order_by("pk").last().pk for m in (Vote, Run))
    completion = Completion.objects.filter(votes__verdict=Verdict.DOWN).first()
    vote_cast(completion=completion, verdict=Verdict.UP, by=annotator, source=Source.ANNOTATE)
    [another] = make_completions(1, of=project)
    second = User.objects.create_user("new@example.com", "correct horse battery")
    vote = Vote.objects.create(
        completion=another, project=project, user=second, verdict="up", source="annotate"
    )
    with transaction.atomic():
        examples_refresh([another.pk])
    # which of one person's votes a cap leaves out depends on ids
    project.person_share = 100
    project.save(update_fields=["person_share"])
    run = run_request(project=project, by=admin)

    assert Example.objects.get(completion=completion).desirable
    assert vote.pk > last_vote
    assert run.pk > last_run
    assert run.number == 2
    assert run.snapshot.items.count() == 61


@pytest.mark.parametrize("deleted", ["last", "every"])
def test_id_of_a_deleted_person_is_not_given_again(
    root: Path, tmp_path: Path, deleted: str
) -> None:
    people = [User.objects.create_user(f"p{n}@example.com", "x") for n in range(3)]
    last = people[-1].pk
    for person in people[-1:] if deleted == "last" else people:
        person.delete()
    backup_make(directory=tmp_path / "backup", say=quiet)
    empty_installation(root)

    backup_restore(directory=tmp_path / "backup", say=quiet)

    assert User.objects.create_user("new@example.com", "x").pk == last + 1


@pytest.mark.timeout(900)
@pytest.mark.long
def test_run_trains_in_a_restored_installation(
    backup: Path, root: Path, settings: Settings
) -> None:
    pytest.importorskip("torch")
    from tests.tiny import make_tiny_model

    settings.MODELS_ROOT = root.parent / "models"
    make_tiny_model(settings.MODELS_ROOT / "tiny")
    backup_restore(directory=backup, say=quiet)
    Project.objects.update(base_model="tiny", max_tokens=8)
    project, admin = Project.objects.get(), User.objects.get(name="Ada Admin")

    config = RunConfig(epochs=1, batch_size=16, kl_brake=10)
    claim = run_claim(run_request(project=project, by=admin, config=config).pk)
    assert claim is not None
    run_execute(claim, ProcessLauncher())

    run = Run.objects.get(number=2)
    assert run.status == Run.Status.SUCCEEDED, run.error
    assert manifest_check(run.adapter.directory, name="bot@2")
    assert manifest_check(Adapter.objects.get(name="bot@1").directory, name="bot@1")


def test_texts_and_times_survive(project: Project, root: Path, tmp_path: Path) -> None:
    text = 'line\nbreak \u2028 "quoted" \\u0000 \\ 🙂 é' + ("" if is_postgres() else "\x00")
    Project.objects.update(system_prompt=text, reasons={"up": [], "down": [{"key": text}]})
    before = contents()
    backup_make(directory=tmp_path / "backup", say=quiet)
    empty_installation(root)

    backup_restore(directory=tmp_path / "backup", say=quiet)

    assert contents() == before


def is_postgres() -> bool:
    return connection.vendor == "postgresql"


@pytest.mark.parametrize(
    ("text", "there"), [("\x00", "\ufffd"), ("\\u0000", "\\u0000"), ("\\\x00", "\\\ufffd")]
)
def test_nul_characters_of_sqlite_are_replaced_for_postgresql(text: str, there: str) -> None:
    line = tables.NUL.sub(r"\1\\ufffd", json.dumps([text]))
    assert json.loads(line) == [there]


def test_open_import_finds_its_file_in_the_new_place(
    project: Project, admin: User, root: Path, tmp_path: Path, settings: Settings
) -> None:
    (root / "imports").mkdir(parents=True)
    (root / "imports" / "abc").write_text("rows")
    ImportJob.objects.create(
        project=project, by=admin, name="f", path=str(root / "imports" / "abc"), uploaded=True
    )
    backup_make(directory=tmp_path / "backup", say=quiet)
    empty_installation(root)
    settings.ARTIFACT_ROOT = tmp_path / "elsewhere"

    backup_restore(directory=tmp_path / "backup", say=quiet)

    assert Path(ImportJob.objects.get().path).read_text() == "rows"
    assert ImportJob.objects.get().path.startswith(str(tmp_path / "elsewhere"))


def test_file_of_an_open_import_is_taken_from_the_object_store_and_restored_into_it(
    project: Project, admin: User, root: Path, bucket: Bucket, tmp_path: Path, settings: Settings
) -> None:
    settings.ARTIFACT_URL = bucket.url
    path = upload_keep([b'{"prompt": "Q", "completion": "A"}'])
    ImportJob.objects.create(project=project, by=admin, name="f", path=str(path), uploaded=True)
    shutil.rmtree(root)  # another host makes the backup
    backup_make(directory=tmp_path / "backup", say=quiet)
    empty_installation(root)
    bucket.filesystem.rm(bucket.url, recursive=True)

    backup_restore(directory=tmp_path / "backup", say=quiet)

    shutil.rmtree(root)
    assert "completion" in file_fetch(Path(ImportJob.objects.get().path)).read_text()


def test_adapter_that_is_being_imported_is_backed_up(
    adapter: Adapter, root: Path, tmp_path: Path
) -> None:
    for number, status in enumerate((Run.Status.QUEUED, Run.Status.SUCCEEDED), 2):
        (root / "imported" / status).mkdir(parents=True)
        (root / "imported" / status / "adapter_config.json").write_text("{}")
        Run.objects.create(
            project=adapter.project,
            number=number,
            snapshot=adapter.run.snapshot,
            trigger=Run.Trigger.IMPORTED,
            status=status,
            config={"imported": f"imported/{status}"},
        )
    backup_make(directory=tmp_path / "backup", say=quiet)
    empty_installation(root)

    backup_restore(directory=tmp_path / "backup", say=quiet)

    assert files_in(root / "imported") == {"queued/adapter_config.json"}


def test_version_without_files_since_an_erasure_is_not_missed(
    adapter: Adapter, root: Path, tmp_path: Path
) -> None:
    now = timezone.now()
    shutil.rmtree(adapter.directory)
    Adapter.objects.update(discarded_at=now, locked_at=now, deleted_at=now)
    assert backup_make(directory=tmp_path / "backup", say=quiet).missing == []
    empty_installation(root)

    backup_restore(directory=tmp_path / "backup", say=quiet)

    assert Adapter.objects.get().deleted_at == now


# -- in processes of their own


def manage(var: Path, *arguments: str) -> str:
    """Run a command of manage.py on a SQLite database under `var`; return its output."""
    done = subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=settings.BASE_DIR,
        env={
            **{name: os.environ[name] for name in ("PATH", "SECRET_KEY", "PROSPECT_ENV")},
            "PROSPECT_VAR": str(var),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.long
def test_backup_restores_into_a_new_installation_of_the_other_database_and_back(
    backup: Path, root: Path, tmp_path: Path
) -> None:
    """Through a new SQLite database, whatever this suite runs on."""
    assert "Restored" in manage(tmp_path / "new", "restore", str(backup))
    assert "Backed up" in manage(tmp_path / "new", "backup", str(tmp_path / "second"))

    backup_restore(directory=tmp_path / "second", say=quiet)

    for name in json.loads((backup / "manifest.json").read_text())["rows"]:
        path = tables.file_of(name)
        assert table_lines(tmp_path / "second" / path) == table_lines(backup / path)
    assert Vote.objects.count() == 60
    assert manifest_check(root / "adapters" / "bot@1", name="bot@1")


def table_lines(path: Path) -> list[dict[str, Any]]:
    names, *rows = map(json.loads, gzip.decompress(path.read_bytes()).splitlines())
    return [dict(zip(names, row, strict=True)) for row in rows]


#: The last migration of training that the earlier version had.
EARLIER = "0018_sweeps"


@pytest.mark.long
def test_backup_of_an_earlier_version_is_migrated(backup: Path, tmp_path: Path) -> None:
    """Restore what a version wrote that had no later migration of training than EARLIER."""
    later = [
        migration
        for (app, name), migration in sorted(MigrationLoader(None).disk_migrations.items())
        if app == "training" and name > EARLIER and not migration.replaces
    ]
    assert later

    def earlier(values: dict[str, Any]) -> None:
        for migration in later:
            values["migrations"].remove(f"training.{migration.name}")
            for operation in migration.operations:
                take_back(backup, values, operation)

    manifest_change(backup, earlier)

    count = f"{len(later)} migrations of this version"
    assert count in manage(tmp_path / "new", "restore", str(backup))
    shown = manage(tmp_path / "new", "showmigrations", "training")
    assert later[-1].name in shown
    assert "[ ]" not in shown


def take_back(backup: Path, values: dict[str, Any], operation: Operation) -> None:
    """Leave out of a backup what a migration's operation adds to tables."""
    match operation:
        case CreateModel():
            table = apps.get_model("training", operation.name)._meta.db_table
            values["rows"].pop(table)
            values["next_ids"].pop(table, None)
            values["files"].pop(file_of(table))
            (backup / file_of(table)).unlink()
        case AddField():
            model = apps.get_model("training", operation.model_name)
            path = backup / file_of(model._meta.db_table)
            column = model._meta.get_field(operation.name).column
            rows = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
            number = rows[0].index(column)
            text = "".join(json.dumps(row[:number] + row[number + 1 :]) + "\n" for row in rows)
            path.write_bytes(gzip.compress(text.encode()))
            values["files"][file_of(model._meta.db_table)] = asdict(BackedUpFile.of(path))
        case AddIndex() | AddConstraint() | AlterField():
            pass
        case _:
            raise AssertionError(f"say what {operation} adds, or choose a later EARLIER")


# -- one moment


def test_backup_is_of_one_moment_while_others_write(
    adapter: Adapter, root: Path, tmp_path: Path, admin: User
) -> None:
    """While tables are being read, another person votes and a run registers an adapter."""
    # which of one person's votes a cap leaves out depends on ids
    Project.objects.update(person_share=100)
    before = contents()
    wrote = threading.Event()

    def write() -> None:
        try:
            project = Project.objects.get()
            completion = Completion.objects.order_by("pk").last()
            vote_cast(completion=completion, verdict=Verdict.UP, by=admin, source=Source.ANNOTATE)
            adapter_write(run_request(project=project, by=admin), root)
            wrote.set()
        finally:
            connection.close()

    def say(text: str) -> None:
        if "feedback_prompt" in text:  # users and projects are read, votes and runs are not
            writer = threading.Thread(target=write)
            writer.start()
            writer.join()

    backup_make(directory=tmp_path / "backup", say=say)
    assert wrote.is_set(), "a writer does not wait for the backup"
    assert Adapter.objects.count() == 2
    empty_installation(root)

    backup_restore(directory=tmp_path / "backup", say=quiet)

    assert contents() == before
    assert not (root / "adapters" / "bot@2").exists()


@pytest.mark.parametrize(
    ("file", "fault"),
    [
        ("adapter_config.json", "bot@1: adapter_config.json is missing"),
        ("manifest.json", "bot@1 has no readable manifest.json: No such file or directory"),
    ],
)
def test_adapter_damaged_before_the_backup_is_named(
    adapter: Adapter,
    root: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    file: str,
    fault: str,
) -> None:
    (adapter.directory / file).unlink()

    with pytest.raises(CommandError, match=re.escape(fault)) as failed:
        call_command("backup", str(tmp_path / "backup"))
    assert failed.value.returncode == 2
    assert "SECRET_KEY is not in the backup" in capsys.readouterr().out

    empty_installation(root)
    call_command("restore", str(tmp_path / "backup"))
    assert fault in capsys.readouterr().err
    assert Vote.objects.count() == 60


# -- refusals: nothing is changed


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


ADAPTER = "artifacts/adapters/bot@1/adapter_model.safetensors"
VOTES = "database/feedback_vote.jsonl.gz"


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda d: flip(d / VOTES), VOTES),
        (lambda d: flip(d / ADAPTER), ADAPTER),
        (lambda d: (d / VOTES).unlink(), f"{VOTES} is missing"),
        (lambda d: (d / VOTES).write_bytes((d / VOTES).read_bytes()[:-1]), VOTES),
        (lambda d: flip(d / "manifest.json"), "manifest.json is damaged"),
        (lambda d: (d / "manifest.json").unlink(), "not a complete backup"),
        (lambda d: (d / "manifest.json.sha256").unlink(), "not a complete backup"),
        (shutil.rmtree, "not a complete backup"),
    ],
)
def test_damaged_backup_is_refused(
    backup: Path, root: Path, damage: Callable[[Path], None], named: str
) -> None:
    damage(backup)

    with pytest.raises(BackupError, match=named):
        backup_restore(directory=backup, say=quiet)

    assert nothing_changed(root)


def manifest_change(backup: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change a manifest as its maker could, with the right hash."""
    values = json.loads((backup / "manifest.json").read_text())
    change(values)
    text = json.dumps(values)
    (backup / "manifest.json").write_text(text)
    digest = hashlib.sha256(text.encode()).hexdigest()
    (backup / "manifest.json.sha256").write_text(f"{digest}  manifest.json\n")


def rename(values: dict[str, Any], name: str, to: str) -> None:
    values["files"][to] = values["files"].pop(name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(format=2), "has format 2"),
        (lambda m: m["migrations"].append("feedback.9999_later"), "9999_later"),
        (lambda m: m["migrations"].pop(), "tables of another version"),
        (lambda m: m["rows"].update(feedback_vote=59), "has 60 rows in the backup, not 59"),
        (lambda m: rename(m, ADAPTER, "artifacts/../../outside"), "outside the backup"),
    ],
)
def test_backup_that_does_not_fit_is_refused(
    backup: Path, root: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    manifest_change(backup, change)

    with pytest.raises(BackupError, match=message):
        backup_restore(directory=backup, say=quiet)

    assert nothing_changed(root)


def test_link_in_a_backup_is_refused(backup: Path, root: Path) -> None:
    content = (backup / VOTES).rename(backup / "elsewhere")
    (backup / VOTES).symlink_to(content)
    with pytest.raises(BackupError, match="feedback_vote"):
        backup_restore(directory=backup, say=quiet)
    assert nothing_changed(root)


def table_change(
    backup: Path, table: str, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]
) -> None:
    """Change a table's rows as the maker of the backup could, with the right hashes."""
    path = backup / tables.file_of(table)
    rows = change(table_lines(path))
    lines = [list(rows[0]), *(list(row.values()) for row in rows)]
    path.write_bytes(gzip.compress("".join(json.dumps(line) + "\n" for line in lines).encode()))

    def note(values: dict[str, Any]) -> None:
        values["rows"][table] = len(rows)
        values["files"][tables.file_of(table)] = {
            "bytes": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }

    manifest_change(backup, note)


def test_rows_without_their_parents_are_refused(backup: Path, root: Path) -> None:
    table_change(backup, "accounts_user", lambda rows: rows[:-1])
    with pytest.raises(BackupError, match="the database reported"):
        backup_restore(directory=backup, say=quiet)
    assert nothing_changed(root)


def test_row_that_the_database_does_not_accept_is_named(backup: Path, root: Path) -> None:
    table_change(backup, "feedback_project", lambda rows: [{**row, "overlap": 99} for row in rows])
    with pytest.raises(BackupError, match=r"refused rows 1 to 1000 of feedback_project: .*overlap"):
        backup_restore(directory=backup, say=quiet)
    assert nothing_changed(root)


def test_table_with_other_columns_is_refused(backup: Path, root: Path) -> None:
    table_change(backup, "feedback_project", lambda rows: [{**row, "colour": 1} for row in rows])
    with pytest.raises(BackupError, match="has other columns than the table feedback_project"):
        backup_restore(directory=backup, say=quiet)
    assert nothing_changed(root)


def test_used_installation_is_refused(backup: Path, root: Path) -> None:
    User.objects.create_user("someone@example.com", "x")
    with pytest.raises(BackupError, match="not empty: the table accounts_user has rows"):
        backup_restore(directory=backup, say=quiet)
    assert User.objects.count() == 1
    assert not files_in(root)


def test_artifacts_in_the_way_are_refused(backup: Path, root: Path) -> None:
    (root / "adapters" / "other@1").mkdir(parents=True)
    with pytest.raises(BackupError, match="there are files in"):
        backup_restore(directory=backup, say=quiet)
    assert nothing_changed(root)


def test_other_secret_key_is_refused_unless_accepted(
    backup: Path, root: Path, settings: Settings
) -> None:
    old, settings.SECRET_KEY = settings.SECRET_KEY, "another-key-0123456789-0123456789"
    with pytest.raises(BackupError, match="SECRET_KEY is another one"):
        backup_restore(directory=backup, say=quiet)
    assert nothing_changed(root)

    settings.SECRET_KEY_FALLBACKS = [old]
    backup_restore(directory=backup, say=quiet)
    assert unseal(Webhook.objects.get().secret) == "hook"
    assert unseal(Judge.objects.get().api_key) == "sk-judge"

    empty_installation(root)
    settings.SECRET_KEY_FALLBACKS = []
    backup_restore(directory=backup, say=quiet, other_key=True)
    assert Vote.objects.count() == 60


def test_restore_with_another_key_says_who_cannot_sign_in(
    adapter: Adapter,
    admin: User,
    annotator: User,
    root: Path,
    tmp_path: Path,
    settings: Settings,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for person in (admin, annotator):
        TOTP.activate(person, "SECRETSECRET")
        RecoveryCodes.activate(person)
    backup_make(directory=tmp_path / "backup", say=quiet)
    empty_installation(root)
    call_command("restore", str(tmp_path / "backup"), "--other-key")
    assert "cannot sign in" not in capsys.readouterr().out, "the key is the same"
    empty_installation(root)
    settings.SECRET_KEY = "another-key-0123456789-0123456789"

    call_command("restore", str(tmp_path / "backup"), "--other-key")

    assert "2 people cannot sign in" in capsys.readouterr().out
    assert Authenticator.objects.count() == 4, "nobody gets in with the password alone unasked"
    call_command("forget_factors", "--unreadable")
    assert not Authenticator.objects.exists()


def test_disk_full_during_a_restore_leaves_nothing(
    backup: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = shutil.copyfile

    def full(source: Path, target: Path) -> None:
        if Path(target).name == "manifest.json":
            raise OSError(errno.ENOSPC, "No space left on device", str(target))
        copy(source, target)

    monkeypatch.setattr(artifacts.shutil, "copyfile", full)
    with pytest.raises(BackupError, match="The disk is full: free some space"):
        backup_restore(directory=backup, say=quiet)
    assert nothing_changed(root)

    monkeypatch.undo()
    backup_restore(directory=backup, say=quiet)
    assert Vote.objects.count() == 60


def test_disk_full_during_a_backup_leaves_nothing(
    adapter: Adapter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(target))

    monkeypatch.setattr(artifacts.shutil, "copyfile", full)
    with pytest.raises(BackupError, match="The disk is full"):
        backup_make(directory=tmp_path / "backup", say=quiet)
    assert list((tmp_path / "backup").iterdir()) == []


def test_directory_of_an_earlier_backup_is_refused(backup: Path) -> None:
    before = files_in(backup)
    with pytest.raises(BackupError, match="is not empty"):
        backup_make(directory=backup, say=quiet)
    assert files_in(backup) == before


def test_directory_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BackupError, match="cannot be written"):
        backup_make(directory=tmp_path / "file" / "backup", say=quiet)


def test_database_with_pending_migrations_is_not_backed_up(tmp_path: Path) -> None:
    recorder = MigrationRecorder(connection)
    name = max(name for app, name in recorder.applied_migrations() if app == "feedback")
    recorder.record_unapplied("feedback", name)
    try:
        with pytest.raises(BackupError, match=f"pending, from feedback.{name}"):
            backup_make(directory=tmp_path / "backup", say=quiet)
    finally:
        recorder.record_applied("feedback", name)
    assert not (tmp_path / "backup").exists()


def test_backup_is_private(backup: Path) -> None:
    assert backup.stat().st_mode & 0o077 == 0


def test_manifest_names_version_and_migrations(backup: Path) -> None:
    values = json.loads((backup / "manifest.json").read_text())
    assert values["prospect"]
    assert values["database"] == connection.vendor
    assert "feedback.0001_initial" in values["migrations"]
    assert set(values["files"]) == files_in(backup) - {"manifest.json", "manifest.json.sha256"}
    for name, file in values["files"].items():
        assert hashlib.sha256((backup / name).read_bytes()).hexdigest() == file["sha256"]
