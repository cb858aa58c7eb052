"""Each check finds a planted problem and says what to do; a healthy installation has none."""

import datetime as dt
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from django.conf import settings as django_settings
from django.db import connection
from django.db.migrations.recorder import MigrationRecorder
from django.utils import timezone
from pytest_django import Settings

from feedback_app.accounts.models import Scope, User
from feedback_app.feedback.models import (
    Completion,
    Example,
    ImportJob,
    Project,
    Prompt,
    Vote,
    Webhook,
    WebhookDelivery,
)
from feedback_app.feedback.tokens.services import token_create
from feedback_app.localstack.stack import Stack
from feedback_app.operations.beat_tick import KEY, tick_age, tick_write
from feedback_app.operations.doctor import services
from feedback_app.operations.doctor.checks import artifacts, configuration, database
from feedback_app.operations.doctor.findings import Check, Problem
from feedback_app.serving.models import Release, ShareLink
from feedback_app.training.models import Adapter, Erasure, Judge, Run
from feedback_app.training.runs.services import run_request
from tests.engines import RunningEngine, wait_until
from tests.operations.world import adapter_write
from tests.stacks import database_url

pytestmark = pytest.mark.slow

CHECKS: dict[str, Check] = {
    **services.CONFIGURATION,
    **services.DATABASE,
    **services.ROWS,
    **services.BROKER,
    **services.ENGINES,
    **services.ENGINES_AND_ROWS,
}
NOWHERE = "127.0.0.1:9"


def found(name: str) -> list[Problem]:
    return list(CHECKS[name]())


@dataclass
class World:
    """A healthy project with votes, a run and a live adapter, and the means to break it."""

    project: Project
    admin: User
    adapter: Adapter
    root: Path
    settings: Settings
    monkeypatch: pytest.MonkeyPatch

    @property
    def run(self) -> Run:
        return self.adapter.run

    def deactivate_admin(self) -> None:
        User.objects.filter(pk=self.admin.pk).update(is_active=False)

    def no_owner(self) -> None:
        self.project.memberships.filter(user=self.admin).delete()

    def token_of_inactive(self) -> None:
        token_create(project=self.project, name="nightly", scopes=[Scope.CHAT], by=self.admin)
        self.deactivate_admin()

    def link_of_inactive(self) -> None:
        ShareLink.objects.create(
            project=self.project,
            label="for the fair",
            prefix="abc",
            digest="d" * 64,
            choice="live",
            messages_limit=1,
            messages_each=1,
            votes_limit=1,
            created_by=self.admin,
            expires_at=timezone.now() + dt.timedelta(days=1),
        )
        self.deactivate_admin()

    def set(self, **values: Any) -> None:
        for name, value in values.items():
            setattr(self.settings, name, value)

    def webhook(self, *, secret: str) -> Webhook:
        return Webhook.objects.create(
            project=self.project, url="https://example.com", secret=secret, created_by=self.admin
        )

    def webhook_of_former_admin(self) -> None:
        self.webhook(secret="x")
        self.project.memberships.filter(user=self.admin).update(role="annotator")

    def webhook_of_inactive(self) -> None:
        self.webhook(secret="x")
        self.deactivate_admin()

    def judge(self, *, api_key: str) -> Judge:
        return Judge.objects.create(
            project=self.project, url="https://example.com/v1", model="m", api_key=api_key
        )

    def webhook_late(self) -> None:
        WebhookDelivery.objects.create(
            webhook=self.webhook(secret="x"),
            event="vote.cast",
            key="1",
            body="{}",
            next_at=timezone.now() - dt.timedelta(hours=1),
        )

    def stale_run(self) -> None:
        Run.objects.filter(pk=self.run.pk).update(
            status=Run.Status.RUNNING, heartbeat_at=timezone.now() - dt.timedelta(hours=1)
        )

    def stale_import(self) -> None:
        ImportJob.objects.create(
            project=self.project,
            by=self.admin,
            name="rows.csv",
            path="rows.csv",
            status=ImportJob.Status.RUNNING,
            heartbeat_at=timezone.now() - dt.timedelta(hours=1),
        )

    def erasure_that_fails(self) -> None:
        Erasure.objects.create(
            project=self.project, person=9, account=False, attempt=5, heartbeat_at=timezone.now()
        )

    def damaged_adapter(self) -> None:
        (self.adapter.directory / "adapter_model.safetensors").write_bytes(b"other weights")

    def adapter_gone(self) -> None:
        (self.adapter.directory / "manifest.json").unlink()

    def secret_readable(self) -> None:
        var = self.root.parent / "var"
        var.mkdir(mode=0o755)
        var.chmod(0o755)
        (var / "secret_key").write_text("s")
        self.settings.VAR = var

    def old_static_files(self) -> None:
        self.manifest_storage()
        Path(self.settings.STATIC_ROOT).mkdir(parents=True)
        (Path(self.settings.STATIC_ROOT) / "staticfiles.json").write_text('{"paths": {"a": "b"}}')

    def manifest_storage(self) -> None:
        backend = "whitenoise.storage.CompressedManifestStaticFilesStorage"
        self.settings.STORAGES = {
            **self.settings.STORAGES,
            "staticfiles": {"BACKEND": backend},
        }
        self.settings.STATIC_ROOT = self.root.parent / "static"

    def no_space(self) -> None:
        usage = SimpleNamespace(free=2**20)
        self.monkeypatch.setattr(artifacts.shutil, "disk_usage", lambda path: usage)

    def old_package(self) -> None:
        self.monkeypatch.setattr(
            configuration, "requires", lambda name: ["django>=99", "no-such-package-of-ours>=1"]
        )

    def clock_ahead(self) -> None:
        later = timezone.now() + dt.timedelta(minutes=3)
        self.monkeypatch.setattr(database, "database_time", lambda: later)

    def vote_without_example(self) -> None:
        Example.objects.filter(pk=Example.objects.first().pk).delete()

    def vote_not_counted(self) -> None:
        Vote.objects.filter(pk=Vote.objects.first().pk).delete()

    def prompt_in_other_split(self) -> None:
        prompt = Prompt.objects.filter(split="train").first()
        Prompt.objects.filter(pk=prompt.pk).update(split="test")

    def snapshot_in_both_splits(self) -> None:
        """Two completions of one prompt, one of them in another split."""
        one, other = self.run.snapshot.items.filter(split="train")[:2]
        Completion.objects.filter(pk=other.completion_id).update(prompt=one.completion.prompt)
        self.run.snapshot.items.filter(pk=other.pk).update(split="test")

    def live_version_without_release(self) -> None:
        Project.objects.update(live_version="base")

    def other_model(self) -> None:
        Project.objects.update(base_model="another-model")


@pytest.fixture
def world(
    voted_project: Project,
    admin: User,
    tmp_path: Path,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> World:
    root = tmp_path / "artifacts"
    settings.ARTIFACT_ROOT = root
    settings.MODELS_ROOT = tmp_path / "models"
    for name in {voted_project.base_model, settings.BASE_MODEL}:
        (settings.MODELS_ROOT / name).mkdir(parents=True)
        (settings.MODELS_ROOT / name / "config.json").write_text("{}")
    adapter = adapter_write(run_request(project=voted_project, by=admin), root)
    Release.objects.create(project=voted_project, adapter=adapter, released_by=admin)
    Project.objects.filter(pk=voted_project.pk).update(live_version=adapter.name)
    return World(voted_project, admin, adapter, root, settings, monkeypatch)


Plant = Callable[[World], object]
PUBLIC = {"ALLOWED_HOSTS": ["prospect.example.com"]}
#: The check, how its problem is made, and what its sentence names.
TABLE: list[tuple[str, Plant, str]] = [
    ("secret_key", lambda w: w.set(SECRET_KEY="change-me-" + "x" * 40), "can be guessed"),
    ("secret_key", lambda w: w.set(SECRET_KEY="short"), "can be guessed"),
    ("secret_key", lambda w: w.set(SECRET_KEY="a" * 50), "can be guessed"),
    ("allowed_hosts", lambda w: w.set(ALLOWED_HOSTS=["a.example.com", "*"]), "every name"),
    ("allowed_hosts", lambda w: w.set(ALLOWED_HOSTS=[]), "is empty"),
    ("debug", lambda w: w.set(DEBUG=True, **PUBLIC), "DEBUG is on"),
    ("production_mode", lambda w: w.set(**PUBLIC), "PROSPECT_ENV"),
    (
        "mail",
        lambda w: w.set(
            EMAIL_BACKEND="django.core.mail.backends.console.EmailBackend", PRODUCTION=True
        ),
        "No mail server",
    ),
    ("proxies", lambda w: w.set(PRODUCTION=True), "TRUSTED_PROXY_COUNT is 0"),
    ("webhook_networks", lambda w: w.set(WEBHOOK_NETWORKS=["0.0.0.0/0"]), "0.0.0.0/0"),
    ("webhook_networks", lambda w: w.set(WEBHOOK_NETWORKS=["127.0.0.1"]), "127.0.0.1/32"),
    ("webhook_networks", lambda w: w.set(WEBHOOK_NETWORKS=["fe80::/64"]), "fe80::/64"),
    ("webhook_networks", lambda w: w.set(WEBHOOK_NETWORKS=["intranet"]), "no network"),
    ("judge_networks", lambda w: w.set(JUDGE_NETWORKS=["169.254.169.254"]), "169.254.169.254/32"),
    ("judge_networks", lambda w: w.set(JUDGE_NETWORKS=["0.0.0.0/0"]), "0.0.0.0/0"),
    ("judge_networks", lambda w: w.set(JUDGE_NETWORKS=["intranet"]), "no network"),
    ("versions", World.old_package, "no-such-package-of-ours is missing"),
    ("permissions", World.secret_readable, "secret_key"),
    ("static_files", World.manifest_storage, "are not collected"),
    ("static_files", World.old_static_files, "of an earlier version"),
    ("artifact_root", lambda w: w.set(ARTIFACT_ROOT=Path("/dev/null/x")), "cannot be written"),
    ("space", World.no_space, "0.0 GiB left"),
    ("database_clock", World.clock_ahead, "differs by 1"),
    ("live_adapters", World.damaged_adapter, "bot@1: adapter_model.safetensors differs"),
    ("live_adapters", World.adapter_gone, "bot@1 has no readable manifest"),
    ("adapters", World.adapter_gone, "bot@1"),
    ("model_directories", World.other_model, "another-model"),
    ("projects_without_engine", World.other_model, "project bot uses another-model"),
    ("stale_claims", World.stale_run, " s: run "),
    ("stale_claims", World.stale_import, " s: import job "),
    ("stale_claims", World.erasure_that_fails, "Begun 5 times or more"),
    ("webhooks_late", World.webhook_late, "1 webhook deliveries"),
    ("owners", World.no_owner, "project bot has no active owner"),
    ("owners", World.deactivate_admin, "project bot has no active owner"),
    ("sealed_values", lambda w: w.webhook(secret="sealed by another key"), "1 of 1"),
    ("sealed_values", lambda w: w.judge(api_key="sealed by another key"), "1 of 1"),
    ("tokens", World.token_of_inactive, "nightly"),
    ("share_links", World.link_of_inactive, "for the fair"),
    ("webhooks", World.webhook_of_former_admin, "https://example.com"),
    ("webhooks", World.webhook_of_inactive, "https://example.com"),
    ("votes_and_examples", World.vote_without_example, "1 of 60"),
    ("votes_and_examples", World.vote_not_counted, "1 of 60"),
    ("splits", World.prompt_in_other_split, "another split than their prompt"),
    ("splits", World.snapshot_in_both_splits, "in more than one split"),
    ("live_versions", World.live_version_without_release, "its live release is bot@1"),
]


@pytest.mark.django_db
@pytest.mark.parametrize(("name", "plant", "named"), TABLE)
def test_planted_problem_is_found(world: World, name: str, plant: Plant, named: str) -> None:
    before = [problem for problem in found(name) if named in problem.what]
    assert before == []

    plant(world)

    [problem] = [problem for problem in found(name) if named in problem.what]
    assert problem.what.endswith(".")
    assert problem.do.endswith(".")


@pytest.mark.django_db(transaction=True)
def test_pending_and_later_migrations_are_found(migrations_recorded: None) -> None:
    recorder = MigrationRecorder(connection)
    assert found("migrations") == []
    recorder.record_unapplied("feedback", "0022_plain_labels")
    recorder.record_applied("feedback", "9999_later")
    try:
        pending, later = found("migrations")
    finally:
        recorder.record_applied("feedback", "0022_plain_labels")
        recorder.record_unapplied("feedback", "9999_later")
    assert "1 migrations are pending: feedback.0022_plain_labels" in pending.what
    assert "newer than this version of Prospect: feedback.9999_later" in later.what


@pytest.mark.django_db(transaction=True)
def test_database_that_cannot_be_written_is_found() -> None:
    setting = {
        "sqlite": "PRAGMA query_only = %s",
        "postgresql": "SET default_transaction_read_only = %s",
    }
    assert found("database_writable") == []
    with connection.cursor() as cursor:
        cursor.execute(setting[connection.vendor] % "on")
        [problem] = found("database_writable")
        cursor.execute(setting[connection.vendor] % "off")
    assert "The database cannot be written" in problem.what
    assert found("database_writable") == []


def test_sqlite_without_wal_is_found(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    if connection.vendor != "sqlite":
        assert found("database_journal") == []
        return
    assert found("database_journal") == []
    monkeypatch.setattr(database, "journal_mode", lambda: "delete")
    assert "journal mode is delete" in found("database_journal")[0].what


def test_sqlite_on_a_network_file_system_is_found(
    db: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert found("database_file_system") == []
    mounts = tmp_path / "mounts"
    mounts.write_text("/dev/a / ext4 rw 0 0\nserver:/home /tmp nfs4 rw 0 0\n/dev/b /t ext4 rw 0 0")
    monkeypatch.setattr(database, "MOUNTS", mounts)
    assert database.file_system_of(Path("/tmp/x")) == "nfs4"  # noqa: S108
    assert database.file_system_of(Path("/home/x")) == "ext4"
    if connection.vendor == "sqlite":
        monkeypatch.setitem(connection.settings_dict, "NAME", "/tmp/p.sqlite3")  # noqa: S108
        assert "network file system (nfs4)" in found("database_file_system")[0].what


def test_check_that_fails_is_a_finding() -> None:
    def broken() -> Iterator[Problem]:
        raise ZeroDivisionError("no rows")
        yield

    [problem] = services.safely(broken)
    assert "ZeroDivisionError: no rows" in problem.what


# -- engines


@pytest.mark.slow
@pytest.mark.django_db
def test_engine_problems_are_found(world: World, engine: RunningEngine, settings: Settings) -> None:
    settings.ENGINES = {"tiny": engine.url}
    Project.objects.update(base_model="tiny", live_version="base")
    assert found("engines") == found("engine_models") == found("live_adapters_loaded") == []

    Project.objects.update(live_version="bot@77")
    [problem] = found("live_adapters_loaded")
    assert "has not loaded bot@77" in problem.what
    assert problem.warning

    adapter = world.adapter
    Project.objects.update(live_version=adapter.name)
    assert found("live_adapters_quantised") == []
    Run.objects.filter(pk=adapter.run_id).update(config={"quantisation": "4bit"})
    [problem] = found("live_adapters_quantised")
    assert f"{adapter.name} was trained and judged with quantisation 4bit" in problem.what
    assert "ENGINE_QUANTISATION=4bit" in problem.do
    assert problem.warning

    settings.ENGINES = {"other": engine.url}
    assert "serves tiny" in found("engine_models")[0].what
    assert "not other" in found("engine_models")[0].what

    settings.ENGINES = {"tiny": [engine.url, f"http://{NOWHERE}"]}
    [problem] = found("engines")
    assert f"at http://{NOWHERE} does not answer" in problem.what


# -- the broker, workers and beat


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    var = str(tmp_path_factory.mktemp("broker"))
    with Stack({"PROSPECT_VAR": var, "PROSPECT_ENV": "test", "REDIS_URL": None}, ["valkey"]) as on:
        yield on.redis_url


@pytest.fixture
def server(valkey: str, settings: Settings) -> Iterator[redis.Redis]:
    settings.REDIS_URL = valkey
    with redis.Redis.from_url(valkey) as client:
        yield client
        client.config_set("maxmemory-policy", "noeviction")
        client.flushall()


@pytest.mark.slow
def test_broker_that_evicts_queues_is_found(server: redis.Redis) -> None:
    assert found("broker") == found("broker_eviction") == found("broker_clock") == []
    server.config_set("maxmemory-policy", "volatile-lru")
    assert found("broker_eviction") == []
    server.config_set("maxmemory-policy", "allkeys-lru")
    assert "allkeys-lru" in found("broker_eviction")[0].what


@pytest.mark.slow
def test_broker_clock_that_differs_is_found(
    server: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    real = time.time
    monkeypatch.setattr("time.time", lambda: real() + 60)
    assert "differs by -60 s" in found("broker_clock")[0].what


@pytest.mark.slow
def test_broker_that_needs_a_password_is_found(server: redis.Redis, settings: Settings) -> None:
    server.config_set("requirepass", "secret")
    try:
        assert "another password" in found("broker")[0].what
    finally:
        server.config_set("requirepass", "")


def test_unreachable_broker_is_found(settings: Settings) -> None:
    settings.REDIS_URL = f"redis://{NOWHERE}/0"
    assert "cannot be reached" in found("broker")[0].what
    settings.HAS_SHARED_CACHE = False
    assert "neither Valkey nor Redis" in found("broker")[0].what


def test_broker_without_password_on_another_host_is_found(settings: Settings) -> None:
    for url in ("redis://127.0.0.1:6379/0", "redis://:secret@broker:6379/0", "unix:///run/v.sock"):
        settings.REDIS_URL = url
        assert found("broker_password") == []
    settings.REDIS_URL = "redis://broker:6379/0"
    [problem] = found("broker_password")
    assert "at broker takes commands without a password" in problem.what


@pytest.mark.slow
def test_missing_beat_is_found(server: redis.Redis) -> None:
    assert "no message for a week" in found("beat")[0].what
    tick_write()
    assert found("beat") == []
    server.set(KEY, 1_700_000_000)
    assert "Beat has sent no message for" in found("beat")[0].what


# -- the command


def doctor(env: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "manage.py", "doctor", *arguments],
        cwd=django_settings.BASE_DIR,
        env={"PATH": os.environ["PATH"], "PROSPECT_ENV": "test", **env},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.long
def test_command_reports_a_new_installation_without_processes(tmp_path: Path) -> None:
    env = {
        "PROSPECT_VAR": str(tmp_path / "var"),
        "REDIS_URL": f"redis://{NOWHERE}/0",
        "ENGINE_URL": f"http://{NOWHERE}",
        "DATABASE_URL": f"postgres://nobody@{NOWHERE}/none",
    }
    done = doctor(env, "--json")

    assert done.returncode == 1, done.stderr
    report = json.loads(done.stdout)
    assert not report["healthy"]
    names = {finding["check"] for finding in report["findings"]}
    assert {"database", "broker", "engines"} <= names
    assert {"migrations", "owners", "workers", "beat"} <= set(report["skipped"])
    assert set(report["checked"]) | set(report["skipped"]) == set(CHECKS)
    assert not any(finding["what"].endswith("..") for finding in report["findings"])

    shown = doctor(env)
    assert shown.returncode == 1
    assert "✗ database: The database cannot be reached" in shown.stdout
    assert "    Start it, and compare DATABASE_URL." in shown.stdout
    assert "Not checked because of the above: " in shown.stdout


@pytest.mark.long
def test_missing_workers_and_beat_are_found(valkey: str, tmp_path: Path) -> None:
    """In a process of its own: Celery keeps the broker that it was configured with."""
    env = {"PROSPECT_VAR": str(tmp_path / "var"), "REDIS_URL": valkey}
    report = json.loads(doctor(env, "--json").stdout)

    sentences = [finding["what"] for finding in report["findings"]]
    for queue in ("default", "gpu"):
        assert any(f"No worker serves the queue {queue}" in text for text in sentences)
    assert any("Beat has sent no message" in text for text in sentences)


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_healthy_installation_has_no_findings(
    stack: Stack, migrations_recorded: None, world: World, settings: Settings
) -> None:
    """All processes are running, and the project has votes, a run and a version."""
    Project.objects.update(base_model="tiny", live_version="base")
    Release.objects.all().delete()
    settings.REDIS_URL = stack.redis_url
    wait_until(lambda: (tick_age() or 1e9) < 60, what="a message of beat")

    done = doctor(
        {
            "PROSPECT_VAR": str(settings.VAR),
            "ARTIFACT_ROOT": str(world.root),
            "DATABASE_URL": database_url(),
            "SECRET_KEY": settings.SECRET_KEY,
            "REDIS_URL": stack.redis_url,
            "BASE_MODEL": "tiny",
            "ENGINE_URL": stack.engine_url,
        },
        "--json",
    )

    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["findings"] == report["skipped"] == []
    assert report["healthy"]
    assert set(report["checked"]) == set(CHECKS)
