"""Imports with an object store: any host shows and imports a file that another one got."""

import datetime as dt
import io
import os
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from feedback_app.accounts.models import Scope, User
from feedback_app.artifacts import artifact_store
from feedback_app.feedback.imports.files import FIRST_ROWS, file_place
from feedback_app.feedback.imports.uploads import PREVIEW_HOURS
from feedback_app.feedback.models import Example, ImportJob, Project
from feedback_app.feedback.tasks import import_file
from feedback_app.feedback.tokens.services import token_create
from feedback_app.monitoring.retention.rules import deletable
from tests.api.data.test_files import jsonl as body_of
from tests.api.data.test_files import send as send_by_api
from tests.api.gateway_client import Program
from tests.feedback.imports.test_pages import jsonl as upload_of
from tests.feedback.imports.test_pages import page, send, text, uploaded
from tests.s3 import Bucket

pytestmark = [pytest.mark.django_db, pytest.mark.slow]

As = Callable[[User], Client]
ROWS = [{"prompt": f"Q{n}", "completion": f"A{n}", "label": True} for n in range(3)]
#: A store that cannot be reached: the library for its kind of URL is not installed.
AWAY = "gs://nowhere/here"


@pytest.fixture
def root(bucket: Bucket, settings: Settings, tmp_path: Path) -> Path:
    """The artifact directory of this host, in an installation with an object store."""
    settings.ARTIFACT_URL, settings.ARTIFACT_ROOT = bucket.url, tmp_path / "artifacts"
    return settings.ARTIFACT_ROOT


def stored(bucket: Bucket) -> list[str]:
    return bucket.objects("here/imports")


def on_another_host(root: Path) -> None:
    """Go on as a host with no file."""
    shutil.rmtree(root, ignore_errors=True)


def test_file_is_shown_and_imported_on_other_hosts_and_then_deleted(
    project: Project, admin: User, as_user: As, root: Path, bucket: Bucket
) -> None:
    client = as_user(admin)
    job = uploaded(client, ROWS)
    assert stored(bucket)

    on_another_host(root)
    assert "A2" in text(client, job)
    client.post(page(job, "import-start"))

    on_another_host(root)
    import_file(job.pk)

    job.refresh_from_db()
    assert (job.status, job.imported) == ("done", 3), job.error
    assert stored(bucket) == []
    assert list((root / "imports").iterdir()) == []


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch, bucket: Bucket) -> list[int]:
    """How many bytes each request to the store has asked for of a file that it read in parts."""
    from s3fs.core import S3File

    sizes, fetch = [], S3File._fetch_range

    def counted(self: Any, start: int, end: int) -> bytes:
        sizes.append(end - start)
        return fetch(self, start, end)

    monkeypatch.setattr(S3File, "_fetch_range", counted)
    return sizes


def test_page_of_another_host_reads_the_first_rows_and_brings_no_file(
    project: Project, admin: User, as_user: As, root: Path, read: list[int]
) -> None:
    client = as_user(admin)
    rows = [ROWS[n % 3] | {"prompt": f"Q{n} " + "x" * 100_000} for n in range(200)]
    job = uploaded(client, rows)
    assert Path(job.path).stat().st_size > 20_000_000
    on_another_host(root)

    shown = text(client, job)

    assert "Q9 x" in shown
    assert 0 < sum(read) < 10_000_000
    assert not Path(job.path).exists()
    job.refresh_from_db()
    changed = client.post(page(job, "import-columns"), {"prompt": "prompt"})
    assert changed.status_code in (200, 302)
    assert not Path(job.path).exists()


def parquet(rows: list[Any]) -> SimpleUploadedFile:
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), file)
    return SimpleUploadedFile("votes.parquet", file.getvalue())


@pytest.mark.parametrize("earlier", [False, True])
def test_parquet_is_shown_on_another_host_as_on_the_one_that_got_it(
    project: Project, admin: User, as_user: As, root: Path, bucket: Bucket, earlier: bool
) -> None:
    """`earlier`: uploaded before its first rows were stored beside it."""
    client = as_user(admin)
    odd = [{"question": f"Q{n}", "answer": f"A{n} <b>", "rating": n % 2} for n in range(30)]
    send(client, parquet(odd))
    job = ImportJob.objects.get()
    if earlier:
        Path(job.path).with_name(FIRST_ROWS).unlink()
        tree = f"imports/{Path(job.path).parent.name}"
        artifact_store().push(tree)
    here = text(client, job)
    assert "Q9" in here
    on_another_host(root)

    shown = text(client, job)

    assert without_token(shown) == without_token(here)
    assert Path(job.path).exists() == earlier
    client.post(page(job, "import-start"))
    import_file(job.pk)
    job.refresh_from_db()
    assert (job.status, job.imported) == ("done", 30), job.error


def without_token(page: str) -> str:
    return re.sub(r'(csrfmiddlewaretoken" value|X-CSRFToken|csrf)[^>]*', "", page)


def test_copy_of_an_import_that_another_host_has_ended_is_deleted_with_its_page(
    project: Project, admin: User, as_user: As, root: Path, bucket: Bucket, tmp_path: Path
) -> None:
    client = as_user(admin)
    job = uploaded(client, ROWS)
    client.post(page(job, "import-start"))
    root.rename(tmp_path / "web")
    import_file(job.pk)
    shutil.rmtree(root)
    (tmp_path / "web").rename(root)
    assert Path(job.path).exists()

    text(client, job)

    assert list((root / "imports").iterdir()) == []


def test_copies_that_no_import_needs_are_deleted_with_the_next_upload(
    project: Project, admin: User, as_user: As, root: Path, bucket: Bucket
) -> None:
    client = as_user(admin)
    needed, lost, arriving = Path(uploaded(client, ROWS).path), file_place(), file_place()
    old = time.time() - 2 * 24 * 3600
    for path in (lost, arriving):
        path.write_text("rows")
    for path in (needed, lost):
        os.utime(path.parent, (old, old))
    assert [entry.paths for entry in deletable()] == [(lost.parent,)]

    uploaded(client, ROWS)

    assert needed.exists()
    assert arriving.exists()
    assert not lost.parent.exists()


def test_discarded_and_expired_files_are_deleted_from_the_store(
    project: Project, admin: User, as_user: As, root: Path, bucket: Bucket
) -> None:
    client = as_user(admin)
    client.post(page(uploaded(client, ROWS), "import-stop"))
    assert stored(bucket) == []
    expired = uploaded(client, ROWS)
    on_another_host(root)
    before = timezone.now() - dt.timedelta(hours=PREVIEW_HOURS + 1)
    ImportJob.objects.filter(pk=expired.pk).update(created_at=before)
    kept = uploaded(client, ROWS)
    assert {key.split("/")[3] for key in stored(bucket)} == {Path(kept.path).parent.name}


def test_file_that_is_no_import_is_not_stored(
    project: Project, admin: User, as_user: As, root: Path, bucket: Bucket
) -> None:
    answer = send(as_user(admin), SimpleUploadedFile("f.parquet", b"PAR1 and no more"))
    assert answer.status_code == 400
    assert stored(bucket) == []
    assert list((root / "imports").iterdir()) == []


def test_upload_while_the_store_is_away_says_so_and_keeps_nothing(
    project: Project, admin: User, as_user: As, root: Path, settings: Settings
) -> None:
    settings.ARTIFACT_URL = AWAY
    answer = send(as_user(admin), upload_of(ROWS))
    assert answer.status_code == 400
    assert b"The file cannot be stored now" in answer.content
    assert list((root / "imports").iterdir()) == []
    assert not ImportJob.objects.exists()


def test_import_waits_for_a_store_that_is_away(
    project: Project,
    admin: User,
    as_user: As,
    root: Path,
    bucket: Bucket,
    settings: Settings,
) -> None:
    client = as_user(admin)
    job = uploaded(client, ROWS)
    on_another_host(root)
    settings.ARTIFACT_URL = AWAY
    assert "The file cannot be read now" in text(client, job)
    settings.ARTIFACT_URL = bucket.url
    client.post(page(job, "import-start"))
    on_another_host(root)

    settings.ARTIFACT_URL = AWAY
    import_file(job.pk)
    job.refresh_from_db()
    assert job.active

    settings.ARTIFACT_URL = bucket.url
    stale = timezone.now() - dt.timedelta(hours=1)
    ImportJob.objects.filter(pk=job.pk).update(heartbeat_at=stale)
    import_file(job.pk)
    job.refresh_from_db()
    assert (job.status, job.imported) == ("done", 3), job.error


def test_file_that_is_damaged_in_the_store_ends_its_import(
    project: Project, admin: User, as_user: As, root: Path, bucket: Bucket
) -> None:
    client = as_user(admin)
    job = uploaded(client, ROWS)
    client.post(page(job, "import-start"))
    on_another_host(root)
    for key in stored(bucket):
        if not key.endswith("index.json"):
            bucket.filesystem.pipe_file(key, b"damaged")
    import_file(job.pk)
    job.refresh_from_db()
    assert job.status == "failed"
    assert "differs from its hash" in job.error
    assert not Example.objects.exists()


def test_file_sent_to_the_api_is_imported_on_another_host(
    project: Project, admin: User, root: Path, bucket: Bucket
) -> None:
    scopes = [Scope.DATA_READ, Scope.DATA_WRITE]
    program = Program(*token_create(project=project, name="Sync", scopes=scopes, by=admin))
    started: Any = send_by_api(program, body_of(ROWS)).json()
    # refused while the other is in progress: it leaves nothing
    assert send_by_api(program, body_of(ROWS)).status_code == 409
    assert len({key.split("/")[3] for key in stored(bucket)}) == 1

    on_another_host(root)
    import_file(started["id"])

    assert ImportJob.objects.get(pk=started["id"]).imported == 3
    assert stored(bucket) == []
