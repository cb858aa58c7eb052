"""A backup of an installation whose artifacts are in an object store, and its restore."""

import shutil
from pathlib import Path

import pytest
from pytest_django import Settings

from feedback_app.accounts.models import User
from feedback_app.artifacts import artifact_store
from feedback_app.feedback.models import Project
from feedback_app.operations.backup.artifacts import trees_push
from feedback_app.operations.backup.manifest import BackupError
from feedback_app.operations.backup.services import backup_make, backup_restore
from feedback_app.operations.doctor.checks import artifacts as checks
from feedback_app.training.models import Adapter
from feedback_app.training.registry.files import adapter_fetch
from feedback_app.training.runs.services import run_request
from tests.operations.backup.test_backup import empty_installation, files_in, quiet
from tests.operations.world import adapter_write
from tests.s3 import Bucket

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("migrations_recorded"),
    pytest.mark.slow,
]


@pytest.fixture
def root(tmp_path: Path, settings: Settings) -> Path:
    settings.ARTIFACT_ROOT = tmp_path / "artifacts"
    return tmp_path / "artifacts"


@pytest.fixture
def adapter(
    voted_project: Project, admin: User, root: Path, bucket: Bucket, settings: Settings
) -> Adapter:
    """A version and its run in the object store; this host has no files."""
    settings.ARTIFACT_URL = bucket.url
    run = run_request(project=voted_project, by=admin)
    run.directory.mkdir(parents=True)
    (run.directory / "events.jsonl").write_text("{}\n")
    adapter = adapter_write(run, root)
    trees_push()
    shutil.rmtree(root)
    return adapter


@pytest.mark.long
def test_backup_of_a_host_without_files_restores_into_another_store(
    adapter: Adapter, root: Path, bucket: Bucket, settings: Settings, tmp_path: Path
) -> None:
    backup = tmp_path / "backup"
    manifest = backup_make(directory=backup, say=quiet)
    assert manifest.missing == []
    assert not root.exists(), "the backup needs no copy on this host"
    expected = {
        f"runs/{adapter.run_id}/events.jsonl",
        f"adapters/{adapter.name}/adapter_model.safetensors",
        f"adapters/{adapter.name}/adapter_config.json",
        f"adapters/{adapter.name}/manifest.json",
    }
    assert files_in(backup / "artifacts") == expected

    empty_installation(root)
    with pytest.raises(BackupError, match=r"The installation is not empty: s3://.* has objects"):
        backup_restore(directory=backup, say=quiet)
    settings.ARTIFACT_URL = f"{bucket.url}/new"
    backup_restore(directory=backup, say=quiet)

    settings.ARTIFACT_ROOT = tmp_path / "another host"
    restored = Adapter.objects.get()
    assert files_in(adapter_fetch(restored)) >= {"manifest.json"}
    assert artifact_store().pull(restored.run.tree).joinpath("events.jsonl").exists()


def test_what_is_damaged_in_the_store_is_named_by_backup_and_doctor(
    adapter: Adapter, bucket: Bucket, tmp_path: Path
) -> None:
    assert list(checks.store_answers()) == []
    assert list(checks.adapters_present()) == []
    for key in bucket.objects(f"here/{adapter.path}"):
        if not key.endswith("index.json"):
            bucket.filesystem.pipe_file(key, b"damaged")
    Project.objects.update(live_version=adapter.name)

    (problem,) = checks.live_adapters_intact()
    assert "differs from its hash" in problem.what
    manifest = backup_make(directory=tmp_path / "backup", say=quiet)
    assert any("differs from its hash" in line for line in manifest.missing)

    bucket.filesystem.rm(adapter_key(bucket, adapter), recursive=True)
    (problem,) = checks.adapters_present()
    assert adapter.name in problem.what


def adapter_key(bucket: Bucket, adapter: Adapter) -> str:
    return f"{bucket.url.removeprefix('s3://')}/{adapter.path}"


def test_store_that_does_not_answer_is_named_by_doctor(
    adapter: Adapter, settings: Settings
) -> None:
    settings.ARTIFACT_URL = "s3://no-such-bucket/x"
    (problem,) = checks.store_answers()
    assert "s3://no-such-bucket/x cannot be reached or refuses access" in problem.what
    assert list(checks.live_adapters_intact()) == []
