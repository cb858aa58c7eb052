"""Projects created and duplicated in the browser."""

from collections.abc import Callable

import pytest
from django.core.management import call_command
from django.test import Client
from django.urls import reverse

from feedback_app.accounts.models import AuditEvent, Role, User
from feedback_app.feedback.members.services import member_set
from feedback_app.feedback.models import Project
from feedback_app.training.gate.services import gate_settings, gate_settings_save
from tests.training.gate.reports import SMALL_GATE

pytestmark = pytest.mark.django_db

As = Callable[[User], Client]
NEW = reverse("project-new")


def form(**values: str) -> dict[str, str]:
    return {
        "name": "Shop bot",
        "slug": "shop",
        "base_model": "SmolLM2-135M-Instruct",
        "system_prompt": "Be kind.",
        "guidelines": "Short.",
        **values,
    }


def test_owner_creates_a_project_and_lands_on_its_home(
    project: Project, admin: User, as_user: As
) -> None:
    client = as_user(admin)
    assert NEW in client.get("/?all=1").content.decode()
    assert client.get(NEW).status_code == 200

    answer = client.post(NEW, form())

    created = Project.objects.get(slug="shop")
    assert answer["Location"] == reverse("project-home", args=["shop"])
    assert (created.name, created.system_prompt) == ("Shop bot", "Be kind.")
    assert created.guidelines_number == 1
    assert created.memberships.get().role == Role.OWNER
    assert not created.prompts.exists()
    assert AuditEvent.objects.filter(project=created, action="project.create").exists()


def test_starter_prompts_are_added_if_wanted(project: Project, admin: User, as_user: As) -> None:
    as_user(admin).post(NEW, form(starter_prompts="on"))
    assert Project.objects.get(slug="shop").prompts.count() == 200


@pytest.mark.parametrize("role", [Role.ADMIN, Role.ANNOTATOR, Role.VIEWER])
def test_people_who_own_no_project_are_refused(role: Role, project: Project, as_user: As) -> None:
    person = User.objects.create_user("one@example.com")
    member_set(project=project, user=person, role=role)
    client = as_user(person)
    assert NEW not in client.get("/?all=1").content.decode()
    assert client.get(NEW).status_code == 403
    assert client.post(NEW, form()).status_code == 403
    assert not Project.objects.filter(slug="shop").exists()


def test_superuser_without_a_project_may_create_one(db: None, as_user: As) -> None:
    root = User.objects.create_superuser("root@example.com", "secret")
    as_user(root).post(NEW, form())
    assert Project.objects.get(slug="shop").memberships.get().user == root


def test_guidelines_come_from_a_template_where_none_are_written(
    project: Project, admin: User, as_user: As
) -> None:
    client = as_user(admin)
    for slug, given, expected in (
        ("shop", {"guidelines": ""}, "solved the customer's problem"),
        ("shop-2", {}, "Short."),
    ):
        client.post(NEW, form(slug=slug, guidelines_template="support", **given))
        made = Project.objects.get(slug=slug)
        assert expected in made.guidelines
        assert made.guidelines_number == 1
    assert client.post(NEW, form(slug="x", guidelines_template="y")).status_code == 400


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"slug": "bot"}, "Another project has this address"),
        ({"slug": "Shop Bot"}, "lower-case letters"),
        ({"slug": ""}, "This field is required"),
        ({"base_model": "gpt-9"}, "Select a valid choice"),
        ({"name": "x" * 101}, "at most 100 characters"),
        ({"owner": "1"}, "Unknown fields: owner"),
    ],
)
def test_invalid_values_are_named_and_nothing_typed_is_lost(
    wrong: dict[str, str], message: str, project: Project, admin: User, as_user: As
) -> None:
    assert project.slug == "bot"
    answer = as_user(admin).post(NEW, form(**wrong))
    page = answer.content.decode()
    assert answer.status_code == 400
    assert message in page
    assert "Be kind." in page
    assert Project.objects.count() == 1


def test_copy_has_the_settings_and_nothing_else(
    voted_project: Project, admin: User, as_user: As
) -> None:
    Project.objects.filter(pk=voted_project.pk).update(
        overlap=3, person_share=20, temperature=0.3, test_percent=40
    )
    gate_settings_save(project=voted_project, settings=SMALL_GATE, by=admin)
    client = as_user(admin)
    page = client.get(f"{NEW}?like={voted_project.slug}").content.decode()
    assert f"{voted_project.name} (copy)" in page
    assert voted_project.system_prompt in page

    client.post(NEW, form(like=voted_project.slug))

    copy = Project.objects.get(slug="shop")
    assert (copy.overlap, copy.person_share, copy.temperature, copy.test_percent) == (
        3,
        20,
        0.3,
        40,
    )
    assert gate_settings(copy) == SMALL_GATE
    assert copy.split_key != voted_project.split_key
    assert copy.live_version == "base"
    assert not copy.prompts.exists()
    assert not copy.votes.exists()
    assert copy.memberships.count() == 1


def test_project_of_others_cannot_be_copied(
    project: Project, outsider: User, admin: User, as_user: As
) -> None:
    client = as_user(outsider)  # owns another project
    assert client.get(f"{NEW}?like={project.slug}").status_code == 404
    assert client.post(NEW, form(like=project.slug)).status_code == 404
    assert not Project.objects.filter(slug="shop").exists()


def test_command_finds_the_owner_by_any_case_of_the_address(project: Project, admin: User) -> None:
    call_command("create_project", "shop", owner=admin.email.upper())
    assert Project.objects.get(slug="shop").memberships.get().user == admin
