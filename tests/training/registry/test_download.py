"""A version's files as a ZIP archive."""

import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from django.test import Client
from django.urls import reverse
from pytest_django import Settings

from feedback_app.accounts.models import AuditEvent, User
from feedback_app.feedback.models import Project
from feedback_app.training.models import Adapter, Run, Snapshot

pytestmark = pytest.mark.django_db

As = Callable[[User], Client]
WEIGHTS = bytes(range(256)) * 12_000  # three megabytes: several reads


@pytest.fixture
def adapter(project: Project, settings: Settings, tmp_path: Path) -> Adapter:
    settings.ARTIFACT_ROOT = tmp_path
    run = Run.objects.create(
        project=project,
        number=1,
        snapshot=Snapshot.objects.create(project=project, train_up=1, train_down=1),
        trigger=Run.Trigger.PERSON,
        status=Run.Status.SUCCEEDED,
    )
    directory = tmp_path / "adapters" / "bot@1"
    directory.mkdir(parents=True)
    files = {"adapter_model.safetensors": WEIGHTS, "adapter_config.json": b"{}"}
    for name, data in files.items():
        (directory / name).write_bytes(data)
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    (directory / "manifest.json").write_text(json.dumps({"name": "bot@1", "files": digests}))
    return Adapter.objects.create(
        project=project, run=run, name="bot@1", path="adapters/bot@1", sha256="x"
    )


def url(adapter: Adapter) -> str:
    return reverse("adapter-download", args=[adapter.project.slug, adapter.name])


def test_archive_has_the_files_of_the_manifest(adapter: Adapter, admin: User, as_user: As) -> None:
    (adapter.directory / "secret.txt").write_text("not in the manifest")

    answer = as_user(admin).get(url(adapter))

    assert answer["Content-Disposition"] == 'attachment; filename="bot-1.zip"'
    archive = zipfile.ZipFile(io.BytesIO(b"".join(answer.streaming_content)))
    assert archive.testzip() is None
    assert sorted(archive.namelist()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "gate.json",
        "manifest.json",
    ]
    assert archive.read("adapter_model.safetensors") == WEIGHTS
    event = AuditEvent.objects.get(action="adapter.download")
    assert (event.actor, event.target) == (admin, "bot@1")


def test_run_page_links_it(adapter: Adapter, admin: User, as_user: As) -> None:
    page = as_user(admin).get(reverse("run", args=["bot", 1])).content.decode()
    assert url(adapter) in page


def test_missing_file_is_an_error_with_advice(adapter: Adapter, admin: User, as_user: As) -> None:
    (adapter.directory / "adapter_config.json").unlink()
    answer = as_user(admin).get(url(adapter))
    assert answer.status_code == 400
    assert "restore them from a backup" in answer.content.decode()
    assert not AuditEvent.objects.filter(action="adapter.download").exists()


def test_manifest_that_names_other_directories_gives_none_of_their_files(
    adapter: Adapter, admin: User, as_user: As
) -> None:
    outside = adapter.directory.parent / "outside.txt"
    outside.write_text("private")
    manifest = json.loads((adapter.directory / "manifest.json").read_text())
    manifest["files"]["../outside.txt"] = "0" * 64
    (adapter.directory / "manifest.json").write_text(json.dumps(manifest))
    answer = as_user(admin).get(url(adapter))
    assert b"private" not in b"".join(answer.streaming_content)


def test_other_roles_and_projects_get_nothing(
    adapter: Adapter, annotator: User, outsider: User, as_user: As
) -> None:
    assert as_user(annotator).get(url(adapter)).status_code == 403
    assert as_user(outsider).get(url(adapter)).status_code == 404
    foreign = reverse("adapter-download", args=["other", adapter.name])
    assert as_user(outsider).get(foreign).status_code == 404
