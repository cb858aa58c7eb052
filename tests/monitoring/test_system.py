"""The System page: who sees it, what it shows without asking anybody, and the button."""

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from django.core.cache import cache
from django.test import Client
from django.urls import reverse
from pytest_django import Settings
from pytest_django.fixtures import DjangoAssertNumQueries

from feedback_app.accounts.models import Role, User
from feedback_app.feedback.members.services import member_set
from feedback_app.feedback.models import Project
from feedback_app.feedback.projects.services import project_create
from feedback_app.feedback.templatetags.display import bytes_size
from feedback_app.monitoring import heartbeats, tasks
from feedback_app.monitoring.processes import ProcessBeat
from feedback_app.monitoring.retention.services import cleanup_last, cleanup_waiting
from feedback_app.monitoring.system.measure import (
    ENGINES_KEY,
    EngineState,
    disk_is_due,
    disk_measure,
    engines_measure,
    engines_measured,
)
from tests.engines import RunningEngine

pytestmark = pytest.mark.django_db

As = Callable[[User], Client]
PAGE = "/system/"


@pytest.fixture(autouse=True)
def places(settings: Settings, tmp_path: Path) -> Path:
    settings.ARTIFACT_ROOT, settings.VAR = tmp_path / "artifacts", tmp_path
    (tmp_path / "artifacts").mkdir()
    return tmp_path


def write(path: Path, size: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)


def test_owners_and_superusers_see_the_page(
    project: Project, admin: User, viewer: User, annotator: User, as_user: As
) -> None:
    member_set(project=project, user=annotator, role=Role.ADMIN)
    root = User.objects.create_superuser("root@example.com", "x")
    assert [as_user(user).get(PAGE).status_code for user in (admin, root, viewer, annotator)] == [
        200,
        200,
        403,
        403,
    ]
    assert PAGE in as_user(admin).get("/?all=1").content.decode()
    assert PAGE not in as_user(viewer).get("/?all=1").content.decode()


def test_page_shows_processes_queues_and_the_age_of_figures(
    project: Project, admin: User, as_user: As, places: Path
) -> None:
    ProcessBeat("worker", queues=("gpu",), devices=("H200 <b>, 141 GB",)).beat()
    heartbeats.beat("gpu")
    write(places / "artifacts" / "adapters" / "bot@1" / "weights", 3 * 2**20)
    write(places / "artifacts" / "runs" / "1" / "checkpoints" / "w", 2 * 2**20)
    write(places / "logs" / "web.log", 2**20)
    for kept in ("reference", "scores"):
        write(places / "artifacts" / kept / "one", 2**20)
    disk = disk_measure()
    assert disk.kinds["Stored log-probabilities"] == 2**21
    text = as_user(admin).get(PAGE).content.decode()
    assert "H200 &lt;b&gt;, 141 GB" in text
    assert "no worker" in text, "nobody serves the queue default"
    assert [disk.kinds[kind] >> 20 for kind in ("Versions", "Checkpoints of runs", "Logs")] == [
        3,
        2,
        1,
    ]
    assert "3.0 MB" in text
    assert "Measured <time" in text
    assert "Nothing to free" in text


def test_page_waits_for_no_engine_and_makes_few_queries(
    project: Project,
    admin: User,
    as_user: As,
    settings: Settings,
    django_assert_max_num_queries: DjangoAssertNumQueries,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as engine:
        engine.setblocking(False)
        settings.ENGINES = {"m": f"http://127.0.0.1:{engine.getsockname()[1]}"}
        client = as_user(admin)
        with django_assert_max_num_queries(8):
            assert client.get(PAGE).status_code == 200
        with pytest.raises(BlockingIOError):
            engine.accept()  # nobody has connected


def test_versions_of_other_projects_are_counted_only(
    project: Project, admin: User, outsider: User, as_user: As
) -> None:
    cache.set(
        ENGINES_KEY,
        [
            EngineState(
                "m", "http://user:secret@engine:8001", time.time(), True, ("bot@1", "other@2")
            )
        ],
    )
    text = as_user(admin).get(PAGE).content.decode()
    assert "bot@1" in text
    assert "other@2" not in text
    assert "1 of other projects" in text
    assert "engine:8001" in text
    assert "secret" not in text
    root = User.objects.create_superuser("root@example.com", "x")
    assert "other@2" in as_user(root).get(PAGE).content.decode()


def test_engine_that_does_not_answer_is_shown(settings: Settings) -> None:
    settings.ENGINES = {"m": "http://127.0.0.1:9"}
    engines_measure()
    [found] = engines_measured()
    assert (found.up, found.loaded, found.memory) == (False, (), None)


@pytest.mark.slow
def test_engine_says_what_it_has_loaded_and_its_memory(
    engine: RunningEngine, settings: Settings
) -> None:
    settings.ENGINES = {engine.model: engine.url}
    engines_measure()
    [found] = engines_measured()
    assert found.up
    assert found.memory is not None
    assert found.memory > 50 * 2**20


def test_disk_is_measured_every_ten_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str] = []
    for name in ("measure_engines", "measure_disk"):
        monkeypatch.setattr(
            getattr(tasks, name), "apply_async", lambda *_, name=name, **__: sent.append(name)
        )
    tasks.dispatch()
    assert sent == ["measure_engines", "measure_disk"]
    tasks.measure_disk()
    assert not disk_is_due()
    tasks.dispatch()
    assert sent[2:] == ["measure_engines"]


def test_button_deletes_by_a_worker_and_the_page_follows(
    project: Project, admin: User, as_user: As, places: Path
) -> None:
    write(places / "artifacts" / "imports" / "lost", 5 * 2**20)
    old = time.time() - 2 * 24 * 3600
    os.utime(places / "artifacts" / "imports" / "lost", (old, old))
    disk_measure()
    client = as_user(admin)
    assert "Free 5.0 MB now" in client.get(PAGE).content.decode()
    assert not cleanup_waiting()

    client.post(reverse("system-free"))

    assert cleanup_waiting()
    text = client.get(PAGE).content.decode()
    assert "Waiting for a worker" in text
    assert 'hx-trigger="every 2s"' in text
    assert client.get(PAGE, headers={"HX-Request": "true"}).status_code == 200
    again = client.post(reverse("system-free"), follow=True)
    assert "Files are being deleted already." in again.content.decode()
    tasks.free()
    assert not cleanup_waiting()
    tasks.free()  # the same message again
    done = client.get(PAGE, headers={"HX-Request": "true"})
    assert done.status_code == 286
    assert "5.0 MB freed in 1" in done.content.decode()
    assert "Nothing to free" in client.get(PAGE).content.decode()
    assert not (places / "artifacts" / "imports" / "lost").exists()


def test_only_whoever_owns_all_projects_frees(
    project: Project, admin: User, outsider: User, as_user: As
) -> None:
    for user in (admin, outsider):  # each owns one of two
        assert as_user(user).post(reverse("system-free")).status_code == 403
        assert reverse("system-free") not in as_user(user).get(PAGE).content.decode()
    assert cleanup_last() is None
    disk_measure()
    member_set(project=Project.objects.get(slug="other"), user=admin, role=Role.OWNER)
    assert reverse("system-free") in as_user(admin).get(PAGE).content.decode()


def test_page_of_an_empty_installation(admin: User, as_user: As) -> None:
    project_create(slug="a", name="A", base_model="m", owner=admin)
    text = as_user(admin).get(PAGE).content.decode()
    for shown in ("No heartbeats", "has not done so yet", "Never deleted: versions that are or"):
        assert shown in text
    assert as_user(admin).get(PAGE, {"x": "1"}).status_code == 400


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1024, "1.0 kB"), (2469606195, "2.3 GB"), (10 * 2**40, "10 TB")],
)
def test_sizes_are_written_for_people(count: int, text: str) -> None:
    assert bytes_size(count) == text
