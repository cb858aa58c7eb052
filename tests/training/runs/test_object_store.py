"""Runs whose files are in an object store: resumed by a worker without any, to the same bytes."""

import datetime as dt
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from django.utils import timezone
from pytest_django import Settings

from feedback_app.accounts.models import User
from feedback_app.artifacts import artifact_store
from feedback_app.feedback.models import Project
from feedback_app.training.models import Run
from feedback_app.training.registry.files import BadAdapter, adapter_fetch
from feedback_app.training.runs.config import RunConfig
from feedback_app.training.runs.execution import storage
from feedback_app.training.runs.services import run_request, run_resume
from tests.engines import wait_until
from tests.s3 import Bucket, Server
from tests.stacks import database_url
from tests.training.executing import execute

pytestmark = [pytest.mark.slow, pytest.mark.long]

CONFIG = RunConfig(epochs=4, batch_size=4, kl_brake=10)
WEIGHTS = "adapter_model.safetensors"


@pytest.fixture
def root(tmp_path: Path, settings: Settings) -> Path:
    """A host's directory with a tiny model."""
    pytest.importorskip("torch")
    from tests.tiny import make_tiny_model

    settings.MODELS_ROOT, settings.ARTIFACT_ROOT = tmp_path / "models", tmp_path / "artifacts"
    settings.TRAINER_NICE = 0
    make_tiny_model(settings.MODELS_ROOT / "SmolLM2-135M-Instruct")
    return tmp_path


@pytest.fixture
def small(small: Project, bucket: Bucket, settings: Settings) -> Project:
    """The project in an installation with an object store."""
    settings.ARTIFACT_URL = bucket.url
    return small


def worker_start(run: Run, root: Path, bucket: Bucket) -> subprocess.Popen[bytes]:
    """Start a worker of another host, whose directory is `root`."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.training.launchers.one_run", str(run.pk), str(root)],
        env={
            **os.environ,
            **bucket.environment,
            "DJANGO_SETTINGS_MODULE": "feedback_app.config.settings",
            "DATABASE_URL": database_url(),
            "ARTIFACT_ROOT": bucket.url,
            "TRAINER_NICE": "0",
        },
    )


def stored_checkpoint(run: Run, bucket: Bucket) -> Callable[[], bool]:
    """Return whether the object store has a checkpoint of the run."""

    def stored() -> bool:
        index = [key for key in bucket.objects(f"here/{run.tree}") if key.endswith("index.json")]
        return any(b"checkpoints/step-" in bucket.filesystem.cat_file(key) for key in index)

    return stored


@pytest.mark.django_db(transaction=True)
def test_run_of_a_lost_worker_resumes_on_an_empty_host_to_the_same_adapter(
    small: Project, admin: User, root: Path, bucket: Bucket, settings: Settings
) -> None:
    settings.ARTIFACT_URL = ""
    undisturbed = execute(run_request(project=small, by=admin, config=CONFIG))
    assert undisturbed.status == Run.Status.SUCCEEDED, undisturbed.error
    expected = (undisturbed.adapter.directory / WEIGHTS).read_bytes()
    settings.ARTIFACT_URL = bucket.url

    run = run_request(project=small, by=admin, config=CONFIG)
    lost = root / "lost"
    shutil.copytree(settings.MODELS_ROOT, lost / "models")
    worker = worker_start(run, lost, bucket)
    try:
        wait_until(stored_checkpoint(run, bucket), what="a checkpoint in the store")
    finally:
        worker.send_signal(signal.SIGKILL)
        worker.wait()
    trainer = str(lost / "artifacts" / run.tree)
    wait_until(lambda: not in_use(trainer), what="the end of the killed worker's trainer")
    assert not (lost / "artifacts" / run.tree / "adapter").exists(), "killed too late"
    shutil.rmtree(lost / "artifacts")
    Run.objects.filter(pk=run.pk).update(heartbeat_at=timezone.now() - dt.timedelta(hours=1))

    settings.ARTIFACT_ROOT = root / "other host"
    # base models are at the same path on all hosts: it is part of a checkpoint's identity
    settings.MODELS_ROOT = lost / "models"
    execute(run)

    assert run.status == Run.Status.SUCCEEDED, run.error
    assert run.attempt == 2
    assert "resumed from step" in " ".join(run.notes.values_list("text", flat=True))
    steps = list(run.metrics.order_by("step").values_list("step", flat=True))
    assert steps == list(range(1, undisturbed.metrics.count() + 1))
    assert (run.adapter.directory / WEIGHTS).read_bytes() == expected
    # checkpoints of a finished run are not kept in the store, its examples are
    (index,) = [key for key in bucket.objects(f"here/{run.tree}") if key.endswith("index.json")]
    kept = bucket.filesystem.cat_file(index)
    assert b"checkpoints/" not in kept
    assert b"examples.jsonl" in kept

    # a third host gets the version, and notices what is damaged
    settings.ARTIFACT_ROOT = root / "third host"
    assert (adapter_fetch(run.adapter) / WEIGHTS).read_bytes() == expected
    (run.adapter.directory / WEIGHTS).write_bytes(b"damaged here")
    assert (adapter_fetch(run.adapter) / WEIGHTS).read_bytes() == expected
    settings.ARTIFACT_ROOT = root / "fourth host"
    for key in bucket.objects(f"here/{run.adapter.path}"):
        if not key.endswith("index.json"):
            bucket.filesystem.pipe_file(key, b"damaged in the store")
    with pytest.raises(BadAdapter, match="differs from its hash"):
        adapter_fetch(run.adapter)


def in_use(directory: str) -> bool:
    """Return whether a process has this directory in its command line."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if directory.encode() in (entry / "cmdline").read_bytes().split(b"\0"):
                return True
        except OSError:
            continue
    return False


@pytest.mark.django_db
def test_run_keeps_its_files_while_the_store_is_away_and_is_resumed_afterwards(
    small: Project,
    admin: User,
    root: Path,
    bucket: Bucket,
    s3_server: Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(storage, "PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr(storage, "AGAIN_SECONDS", 0.0)
    run = run_request(project=small, by=admin, config=CONFIG)
    begin = storage.RunFiles.begin

    def begin_and_stop(files: storage.RunFiles) -> None:
        begin(files)
        s3_server.stop()

    with monkeypatch.context() as patch:
        patch.setattr(storage.RunFiles, "begin", begin_and_stop)
        execute(run)

    assert run.status == Run.Status.FAILED
    assert f"The artifact store {bucket.url} cannot be reached" in run.error
    assert "Earlier adapters are intact; fix the cause and resume the run" in run.error
    warnings = run.notes.filter(level="warning").values_list("text", flat=True)
    assert sum("are kept on this worker" in text for text in warnings) == 1
    # trained to its end, and kept
    weights = (run.directory / "adapter" / WEIGHTS).read_bytes()

    s3_server.start()
    bucket.filesystem.mkdir(bucket.url.removeprefix("s3://").split("/")[0])
    run_resume(run=run, by=admin)
    execute(run)

    assert run.status == Run.Status.SUCCEEDED, run.error
    assert (run.adapter.directory / WEIGHTS).read_bytes() == weights
    assert artifact_store().has(run.adapter.path)


@pytest.mark.django_db
def test_next_run_begins_with_the_log_probabilities_of_the_run_before(
    small: Project, admin: User, root: Path, settings: Settings
) -> None:
    first = execute(run_request(project=small, by=admin, config=CONFIG))
    assert first.status == Run.Status.SUCCEEDED, first.error
    (stored,) = (first.directory / storage.REFERENCE).glob("*.logprobs")

    settings.ARTIFACT_ROOT = root / "other host"
    second = execute(run_request(project=small, by=admin, config=CONFIG))

    assert second.status == Run.Status.SUCCEEDED, second.error
    (again,) = (second.directory / storage.REFERENCE).glob("*.logprobs")
    assert again.read_bytes() == stored.read_bytes()
    # nothing was computed again
    assert (second.directory / "events.jsonl").read_text().count('"phase": "reference"') <= 1
