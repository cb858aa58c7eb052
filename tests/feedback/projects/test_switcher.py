"""The project switcher of the bar: which projects it has, and that it keeps the section."""

import re
from collections.abc import Callable

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import NoReverseMatch, resolve, reverse
from django.utils import timezone

from feedback_app.accounts.models import Membership, Role, User
from feedback_app.feedback.members.services import member_set
from feedback_app.feedback.models import Project
from feedback_app.feedback.projects.services import project_create
from feedback_app.feedback.templatetags.display import TABS
from feedback_app.feedback.templatetags.switcher import OFFERED, page_in

pytestmark = pytest.mark.django_db

As = Callable[[User], Client]
LINK = re.compile(r'<li><a class="menu-item" href="([^"]+)">')


def make(number: int, user: User, role: Role = Role.OWNER) -> Project:
    owner = User.objects.filter(email="other-owner@example.com").first()
    owner = owner or User.objects.create_user("other-owner@example.com")
    name, slug = f"Project {number}", f"project-{number}"
    found = project_create(slug=slug, name=name, base_model="tiny", owner=owner)
    member_set(project=found, user=user, role=role)
    return found


def links(client: Client, name: str, project: Project) -> list[str]:
    """Return where the switcher of a page leads."""
    page = client.get(reverse(name, args=[project.slug]))
    assert page.status_code == 200, name
    return LINK.findall(page.content.decode())


def test_person_of_one_project_has_no_menu(project: Project, admin: User, as_user: As) -> None:
    page = as_user(admin).get(reverse("quality", args=[project.slug])).content.decode()
    assert project.name in page
    assert "switch project" not in page


def test_same_page_of_the_other_project_opens(project: Project, admin: User, as_user: As) -> None:
    other = Membership.objects.get(user=admin, project=make(2, admin))
    client = as_user(admin)
    assert links(client, "quality", project) == [reverse("quality", args=["project-2"])]
    followed = set()
    for name in {name for tab in TABS for name in tab.pages}:
        try:
            here = resolve(reverse(name, args=[project.slug]))
        except NoReverseMatch:
            continue  # of a run, a webhook, …
        url = page_in(other, here)
        if url == reverse(name, args=["project-2"]):
            followed.add(name)
            assert client.get(url).status_code == 200, name
    assert {"quality", "gold", "people", "rules", "sweeps", "conversation-log"} <= followed
    # nobody lands on the deletion of a project that they did not open
    assert "project-delete" not in followed


def test_role_in_the_other_project_decides_what_opens(
    project: Project, admin: User, as_user: As
) -> None:
    make(2, admin, Role.ANNOTATOR)
    client = as_user(admin)
    assert links(client, "quality", project) == [reverse("annotate", args=["project-2"])]
    assert links(client, "conversation-log", project) == [reverse("demo", args=["project-2"])]
    make(3, admin, Role.VIEWER)
    assert links(client, "annotate", project) == [
        reverse("annotate", args=["project-2"]),
        reverse("demo", args=["project-3"]),
    ]


def test_page_of_one_object_leads_to_its_section(
    project: Project, admin: User, as_user: As
) -> None:
    make(2, admin)
    url = reverse("person", args=[project.slug, admin.pk])
    page = as_user(admin).get(url).content.decode()
    assert LINK.findall(page) == [reverse("project-settings", args=["project-2"])]


def test_menu_has_no_archived_and_no_foreign_projects(
    project: Project, admin: User, as_user: As
) -> None:
    archived, hostile = make(2, admin), make(3, admin)
    stranger = User.objects.get(email="other-owner@example.com")
    Project.objects.filter(pk=archived.pk).update(archived_at=timezone.now())
    Project.objects.filter(pk=hostile.pk).update(name="<script>alert(1)</script>")
    project_create(slug="foreign", name="Foreign", base_model="tiny", owner=stranger)
    page = as_user(admin).get(reverse("quality", args=[project.slug])).content.decode()
    assert LINK.findall(page) == [reverse("quality", args=["project-3"])]
    assert "<script>alert(1)" not in page


def test_menu_is_in_order_of_names(project: Project, admin: User, as_user: As) -> None:
    for number, name in ((2, "cedar"), (3, "Birch"), (4, "ash"), (5, "Birch")):
        Project.objects.filter(pk=make(number, admin).pk).update(name=name)
    assert links(as_user(admin), "quality", project) == [
        reverse("quality", args=[f"project-{number}"]) for number in (4, 3, 5, 2)
    ]


def test_menu_is_bounded_and_asks_once(project: Project, admin: User, as_user: As) -> None:
    make(2, admin)
    client, url = as_user(admin), reverse("quality", args=[project.slug])
    client.get(url)
    with CaptureQueriesContext(connection) as few:
        client.get(url)
    for number in range(OFFERED + 5, 2, -1):
        make(number + 100, admin)
    with CaptureQueriesContext(connection) as many:
        page = client.get(url).content.decode()
    assert len(few) == len(many)
    found = LINK.findall(page)
    assert len(found) == OFFERED
    # the page of all projects has the others
    assert found[0] == reverse("quality", args=["project-103"])
    assert "All projects" in page
