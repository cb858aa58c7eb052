"""Deleting a project: refused while it is in use, resumable, and only its audit trail is left."""

from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest
from celery import Task
from django.apps import apps
from django.test import Client
from django.urls import reverse
from pytest_django import Settings
from pytest_django.fixtures import DjangoAssertNumQueries

from feedback_app.accounts.audit_chain import chain_faults, events_link
from feedback_app.accounts.models import AuditEvent, Membership, Role, User
from feedback_app.db.claims import ClaimLost
from feedback_app.feedback.members.services import invitation_accept, invitation_create, member_set
from feedback_app.feedback.models import Completion, ImportJob, Project, ProjectDeletion, Vote
from feedback_app.feedback.projects.archive import project_archive, project_restore
from feedback_app.operations.doctor.services import ROWS
from feedback_app.privacy.erasure import person_erase
from feedback_app.serving.engine.client import Engine
from feedback_app.serving.engine.state import engine_models
from feedback_app.serving.project_deletion import parts
from feedback_app.serving.project_deletion.services import (
    deletion_claim,
    deletion_execute,
    deletion_steps,
    project_delete,
)
from feedback_app.serving.tasks import delete_project, dispatch
from feedback_app.training.models import Adapter, Snapshot
from feedback_app.training.runs.services import run_request
from feedback_app.web.errors import UserError
from tests.db.test_claims import heartbeat_stops
from tests.engines import RunningEngine
from tests.faults.world import World, make_world

pytestmark = pytest.mark.django_db

As = Callable[[User], Client]


@pytest.fixture
def artifacts(settings: Settings, tmp_path: Path) -> None:
    settings.ARTIFACT_ROOT = tmp_path
    settings.ENGINES = {"SmolLM2-135M-Instruct": "http://127.0.0.1:9"}  # nothing listens there


@pytest.fixture
def bot(artifacts: None) -> World:
    """An archived project with a row of every kind, and files."""
    world = make_world("shop")
    project_archive(project=world.project, by=world.people["owner"])
    world.project.refresh_from_db()
    for run in world.project.runs.all():
        adapters = [adapter.directory for adapter in Adapter.objects.filter(run=run)]
        for directory in (run.directory, *adapters):
            directory.mkdir(parents=True)
            (directory / "weights").write_text("x")
    imported = world.project.runs.first()
    imported.config["imported"] = "imported/0a1b"
    imported.save()
    weights = imported.directory.parents[1] / "imported" / "0a1b" / "weights"
    weights.parent.mkdir(parents=True)
    weights.write_text("x")
    upload = Path(world.project.runs.first().directory).parents[1] / "imports" / "upload"
    upload.parent.mkdir()
    upload.write_text("{}")
    ImportJob.objects.filter(project=world.project).update(path=str(upload), uploaded=True)
    return world


def of_project(project: Project) -> dict[str, int]:
    """Return the number of rows that refer to a project, directly or by way of others."""
    found: dict[str, int] = {}
    paths: list[tuple[type, str]] = [(Project, "pk")]
    seen = {Project}
    while paths:
        model, path = paths.pop(0)
        for relation in model._meta.get_fields(include_hidden=True):
            if not relation.auto_created or relation.concrete or relation.many_to_many:
                continue
            below = relation.related_model
            name = f"{relation.field.name}__{path}" if path != "pk" else relation.field.name
            if relation.field.null or below in seen:
                continue
            seen.add(below)
            paths.append((below, name))
            if rows := below._default_manager.filter(**{name: project.pk}).count():
                found[below._meta.label] = rows
    return found


def deleted(world: World) -> ProjectDeletion:
    deletion = project_delete(project=world.project, by=world.people["owner"])
    delete_project(deletion.pk)
    deletion.refresh_from_db()
    assert deletion.finished_at is not None
    return deletion


def files(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


# -- what is deleted


def test_everything_of_the_project_is_deleted_and_nothing_of_another(
    bot: World, tmp_path: Path
) -> None:
    other = make_world("other")
    kept = of_project(other.project)
    assert len(of_project(bot.project)) > 35
    assert len(files(tmp_path)) == 7

    deletion = deleted(bot)

    assert set(of_project(bot.project)) == {"accounts.AuditEvent", "feedback.ProjectDeletion"}
    assert of_project(other.project) == kept
    assert files(tmp_path) == []
    assert deletion.counts["feedback.Vote"] == 1
    left = Project.objects.values().get(pk=bot.project.pk)
    assert bot.word not in str({**left, "name": ""})
    # people keep their accounts, and those of visitors and the product's users are gone
    names = User.objects.filter(name__contains=bot.word).values_list("email", flat=True)
    assert sorted(names) == sorted(user.email for user in bot.people.values())


def test_audit_trail_stays_verifies_and_says_what_was_deleted(bot: World) -> None:
    while events_link():
        pass
    before = AuditEvent.objects.filter(project=bot.project).count()

    deleted(bot)
    while events_link():
        pass

    assert list(chain_faults()) == []
    events = AuditEvent.objects.filter(project=bot.project).order_by("pk")
    assert events.count() == before + 2
    requested, done = events[before:]
    assert (requested.action, requested.actor) == ("project.delete", bot.people["owner"])
    assert "3 runs, 2 versions" in requested.reason
    assert (done.action, done.actor) == ("project.deleted", None)
    assert "1 vote" in done.reason


def test_doctor_finds_nothing_while_and_after_a_project_is_deleted(bot: World) -> None:
    def found() -> set[str]:
        names = ("owners", "projects_without_engine", "live_versions", "audit_trail", "adapters")
        return {problem.what for name in names for problem in ROWS[name]()}

    project_delete(project=bot.project, by=bot.people["owner"])
    assert not any("shop" in text for text in found())
    delete_project(bot.project.pk)
    assert not any("shop" in text for text in found())


# -- interrupted


def test_deletion_that_was_killed_goes_on_where_it_stopped(bot: World, settings: Settings) -> None:
    deletion = project_delete(project=bot.project, by=bot.people["owner"])
    for steps in (1, 4, 12, 9):
        killed = deletion_claim(deletion.pk)
        assert killed is not None
        assert len(list(islice(deletion_steps(killed), steps))) == steps
        assert deletion_claim(deletion.pk) is None, "another worker has it"
        heartbeat_stops(deletion, settings)
    claim = deletion_claim(deletion.pk)
    assert claim is not None
    with pytest.raises(ClaimLost):
        list(deletion_steps(killed))

    deletion_execute(claim)

    assert set(of_project(bot.project)) == {"accounts.AuditEvent", "feedback.ProjectDeletion"}
    deletion.refresh_from_db()
    assert deletion.counts["feedback.Vote"] == 1, "counted once"
    delete_project(deletion.pk)  # a second delivery
    assert AuditEvent.objects.filter(action="project.deleted").count() == 1


def test_rows_that_come_while_it_works_are_deleted_as_well(
    bot: World, make_completions: Callable[..., list[Completion]]
) -> None:
    deletion = project_delete(project=bot.project, by=bot.people["owner"])
    claim = deletion_claim(deletion.pk)
    assert claim is not None
    steps = deletion_steps(claim)
    while bot.project.import_jobs.exists():  # after prompts and answers
        next(steps)
    make_completions(2, of=bot.project)  # an answer that was streaming
    list(steps)
    assert set(of_project(bot.project)) == {"accounts.AuditEvent", "feedback.ProjectDeletion"}


def test_dispatch_sends_waiting_and_abandoned_deletions(
    bot: World, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[int] = []

    def send(task: Task, ids: tuple[int], **_: object) -> None:
        sent.extend(ids if task.name == "serving.delete_project" else ())

    monkeypatch.setattr(Task, "apply_async", send)
    deletion = project_delete(project=bot.project, by=bot.people["owner"])
    dispatch()
    assert sent == [deletion.pk]
    deletion_claim(deletion.pk)
    dispatch()
    assert sent == [deletion.pk], "a worker has it"
    heartbeat_stops(deletion, settings)
    dispatch()
    assert sent == [deletion.pk] * 2


# -- who may, and when


def test_only_owners_see_the_page_and_members_lose_the_project_at_once(
    bot: World, as_user: As, client: Client
) -> None:
    page = reverse("project-delete", args=["shop"])
    for role in ("admin", "annotator", "viewer"):
        assert as_user(bot.people[role]).get(page).status_code == 403
        assert as_user(bot.people[role]).post(page, {"slug": "shop"}).status_code == 403
    owner = as_user(bot.people["owner"])
    for name in ("project-settings", "home"):
        url = reverse(name, args=["shop"] if name != "home" else [])
        assert page in owner.get(url, {"all": 1} if name == "home" else {}).content.decode()

    answer = owner.post(page, {"slug": "shop"})

    deletion = ProjectDeletion.objects.get()
    assert answer["Location"] == reverse("project-deletion", args=[deletion.pk])
    for user in bot.people.values():
        assert as_user(user).get(reverse("demo", args=["shop"])).status_code == 404
        assert bot.project.name not in as_user(user).get("/?all=1").content.decode()
    secret = next(iter(bot.tokens.values()))
    headers = {"Authorization": f"Bearer {secret}"}
    assert client.get("/api/v1/projects/shop/prompts", headers=headers).status_code == 401
    assert client.get(reverse("shared", args=[bot.link])).status_code == 404
    assert client.get(reverse("invitation", args=[bot.invitation])).status_code != 200


def test_page_counts_offers_exports_and_asks_for_the_address(bot: World, as_user: As) -> None:
    owner = as_user(bot.people["owner"])
    page = reverse("project-delete", args=["shop"])
    response = owner.get(page)
    text = response.content.decode()
    counts = {line.label: line.count for line in response.context["lines"]}
    assert (counts["runs"], counts["versions"], counts["vote"]) == (3, 2, 1)
    assert reverse("examples-export", args=["shop"]) in text
    assert reverse("audit-export", args=["shop"]) in text
    assert reverse("adapter-download", args=["shop", "shop@2"]) in text

    for typed in ("", "Shop", "other"):
        refused = owner.post(page, {"slug": typed})
        assert refused.status_code == 400
        assert 'id="id_slug_error"' in refused.content.decode()
    assert not ProjectDeletion.objects.exists()


def test_project_in_use_is_refused_with_what_to_do(
    voted_project: Project, admin: User, as_user: As
) -> None:
    page = reverse("project-delete", args=[voted_project.slug])
    run = run_request(project=voted_project, by=admin)
    job = ImportJob.objects.create(
        project=voted_project, by=admin, name="rows.jsonl", path="", status="queued"
    )
    Snapshot.objects.update(status="running")
    client = as_user(admin)

    response = client.post(page, {"slug": voted_project.slug})

    assert response.status_code == 409
    text = response.content.decode()
    for why in (
        "archive it first",
        "Run 1 is in progress",
        "An import is running",
        "A snapshot is being taken",
    ):
        assert why in text
    Snapshot.objects.update(status="taken")
    assert 'name="slug"' not in text
    project_archive(project=voted_project, by=admin)
    with pytest.raises(UserError, match="cancel it, or wait"):
        project_delete(project=voted_project, by=admin)
    # what the page asks for can be done in an archived project
    client.post(reverse("import-stop", args=[voted_project.slug, job.pk]))
    client.post(reverse("run-cancel", args=[voted_project.slug, run.number]))
    voted_project.runs.update(status="cancelled")
    assert client.post(page, {"slug": voted_project.slug}).status_code == 302


def test_deletion_cannot_be_undone_or_joined(bot: World) -> None:
    owner = bot.people["owner"]
    invitation, _ = invitation_create(
        role=Role.VIEWER, days=1, max_uses=1, actor=Membership.objects.get(user=owner)
    )
    project_delete(project=bot.project, by=owner)
    with pytest.raises(UserError, match="is being deleted"):
        project_restore(project=bot.project, by=owner)
    with pytest.raises(UserError, match="archived"):
        invitation_accept(invitation=invitation, user=User.objects.create_user("new@example.com"))


def test_address_of_a_deleted_project_is_not_used_again(bot: World, as_user: As) -> None:
    deleted(bot)
    member_set(project=make_world("other").project, user=bot.people["owner"], role=Role.OWNER)
    values = {"name": "Again", "slug": "shop", "base_model": "SmolLM2-135M-Instruct"}
    page = as_user(bot.people["owner"]).post(reverse("project-new"), values)
    assert page.status_code == 400
    assert "before it was deleted" in page.content.decode()


# -- afterwards


def test_trail_is_read_by_who_requested_it_and_superusers(bot: World, as_user: As) -> None:
    deletion = deleted(bot)
    page, listing = reverse("project-deletion", args=[deletion.pk]), reverse("project-deletions")
    root = User.objects.create_superuser("root@example.com", "x")
    for user in (bot.people["owner"], root):
        text = as_user(user).get(page).content.decode()
        assert "Deletion of the project requested" in text
        assert bot.project.name in as_user(user).get(listing).content.decode()
    for user in (bot.people["admin"], User.objects.create_user("eve@example.com")):
        assert as_user(user).get(page).status_code == 404
        assert bot.project.name not in as_user(user).get(listing).content.decode()


def test_progress_is_polled_until_it_is_done(bot: World, as_user: As) -> None:
    deletion = project_delete(project=bot.project, by=bot.people["owner"])
    client = as_user(bot.people["owner"])
    page = reverse("project-deletion", args=[deletion.pk])
    assert "Waiting for a worker" in client.get(page).content.decode()
    waiting = client.get(page, headers={"HX-Request": "true"})
    assert (waiting.status_code, b"<html" in waiting.content) == (200, False)
    delete_project(deletion.pk)
    assert client.get(page, headers={"HX-Request": "true"}).status_code == 286


def test_address_of_a_person_leaves_the_trail_of_a_deleted_project_with_their_account(
    bot: World,
) -> None:
    owner = bot.people["owner"]
    member_set(project=bot.project, user=bot.people["admin"], role=Role.OWNER)
    AuditEvent.objects.filter(project=bot.project, actor=owner).update(address="203.0.113.7")
    deleted(bot)
    person_erase(user=owner, by=owner)
    while events_link():
        pass
    assert not AuditEvent.objects.filter(address="203.0.113.7").exists()
    assert list(chain_faults()) == []


def test_number_of_queries_of_the_page_is_constant(
    bot: World,
    as_user: As,
    make_completions: Callable[..., list[Completion]],
    django_assert_num_queries: DjangoAssertNumQueries,
) -> None:
    client = as_user(bot.people["owner"])
    page = reverse("project-delete", args=["shop"])
    client.get(page)
    with django_assert_num_queries(29):
        client.get(page)
    for completion in make_completions(30, of=bot.project):
        Vote.objects.create(
            completion=completion,
            project=bot.project,
            user=bot.people["annotator"],
            verdict="up",
            source="annotate",
        )
    with django_assert_num_queries(29):
        client.get(page)


def test_part_of_every_model_comes_before_what_it_refers_to() -> None:
    """A model that is new must be deleted before its project, by a part or by a cascade."""
    order = [part.model for part in parts.PARTS]
    for number, model in enumerate(order):
        for field in model._meta.get_fields():
            below = field.related_model if field.many_to_one or field.one_to_one else None
            protects = field.concrete and getattr(field.remote_field, "on_delete", None)
            if protects and protects.__name__ == "PROTECT" and below in order:
                assert order.index(below) > number, f"{model.__name__} protects {below.__name__}"
    assert {model._meta.app_label for model in apps.get_models() if model in order} == {
        "accounts",
        "feedback",
        "serving",
        "training",
    }


@pytest.mark.slow
def test_versions_are_unloaded_from_the_engines(
    served: Project, make_adapter: Callable[..., Adapter], admin: User, engine: RunningEngine
) -> None:
    adapter = make_adapter(97)
    Engine(served).load(adapter)
    assert adapter.name in engine_models(engine.url)
    project_archive(project=served, by=admin)
    deletion = project_delete(project=served, by=admin)
    delete_project(deletion.pk)
    assert adapter.name not in engine_models(engine.url)
    assert not adapter.directory.exists()
