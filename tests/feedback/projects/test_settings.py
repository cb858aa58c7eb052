"""Settings that two people, or two tabs, edit at once."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from pytest_django import Settings

from feedback_app.accounts.models import User
from feedback_app.feedback.models import Project
from feedback_app.feedback.projects.services import project_change
from feedback_app.training.gate.services import gate_settings
from feedback_app.training.models import GateRules
from feedback_app.web.errors import Conflict

pytestmark = pytest.mark.django_db

As = Callable[[User], Client]


def shown_form(page: Any, name: str = "form") -> dict[str, str]:
    """Return what a browser sends when the form of a page is saved unchanged."""
    values = {field.html_name: field.value() for field in page.context[name]}
    return {
        key: "on" if value is True else str(value)
        for key, value in values.items()
        if value is not None and value is not False
    }


def texts(response: Any) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", response.content.decode()).split())


def test_second_save_of_settings_is_refused_with_both_values(
    project: Project, admin: User, as_user: As
) -> None:
    client, url = as_user(admin), reverse("project-settings", args=["bot"])
    first, second = shown_form(client.get(url)), shown_form(client.get(url))
    assert client.post(url, first | {"name": "Ada's bot", "max_tokens": "64"}).status_code == 302

    refused = client.post(url, second | {"name": "Bob's bot", "overlap": "3"})

    assert refused.status_code == 409
    project.refresh_from_db()
    assert (project.name, project.overlap, project.max_tokens) == ("Ada's bot", 1, 64)
    page = texts(refused)
    assert "Nothing of yours is saved yet" in page
    assert "Saved meanwhile: Ada&#x27;s bot" in page
    assert "Changed meanwhile. It was: 128" in page
    form = shown_form(refused)
    assert (form["name"], form["overlap"], form["max_tokens"]) == ("Bob's bot", "3", "64")
    # somebody who has seen both values decides
    assert client.post(url, form).status_code == 302
    project.refresh_from_db()
    assert (project.name, project.overlap, project.max_tokens) == ("Bob's bot", 3, 64)


def test_settings_saved_meanwhile_with_the_same_values_are_no_conflict(
    project: Project, admin: User, as_user: As
) -> None:
    client, url = as_user(admin), reverse("project-settings", args=["bot"])
    guidelines = "One\r\nTwo\r\n"
    first = shown_form(client.get(url)) | {"guidelines": guidelines}
    assert client.post(url, first).status_code == 302
    assert client.post(url, first).status_code == 302
    assert client.post(url, shown_form(client.get(url)) | {"name": "B"}).status_code == 302
    project.refresh_from_db()
    assert (project.name, project.guidelines_number) == ("B", 2)


def test_releases_and_other_forms_are_no_conflict(
    project: Project, admin: User, as_user: As
) -> None:
    client, url = as_user(admin), reverse("project-settings", args=["bot"])
    form = shown_form(client.get(url))
    rules = reverse("rules", args=["bot"])
    assert (
        client.post(rules, shown_form(client.get(rules)) | {"gold_every": "9"}).status_code == 302
    )
    Project.objects.update(live_version="bot@1")
    assert client.post(url, form | {"name": "B"}).status_code == 302


def test_second_save_of_the_rules_for_votes_is_refused(
    project: Project, admin: User, as_user: As
) -> None:
    client, url = as_user(admin), reverse("rules", args=["bot"])
    form = shown_form(client.get(url))
    client.post(url, form | {"gold_feedback": "after"})
    refused = client.post(url, form | {"gold_feedback": "at_once"})
    assert refused.status_code == 409
    assert "Saved meanwhile: When the queue is empty" in texts(refused)
    project.refresh_from_db()
    assert project.gold_feedback == "after"


def test_second_save_of_the_gates_rules_is_refused(
    project: Project, admin: User, as_user: As
) -> None:
    client, url = as_user(admin), reverse("gate-rules", args=["bot"])
    form = shown_form(client.get(url))
    off = {name: value for name, value in form.items() if name != "on_kl"}
    client.post(url, off | {"margin_finished": "25"})
    refused = client.post(url, form | {"margin_finished": "30"})
    assert refused.status_code == 409
    page = texts(refused)
    assert "Saved meanwhile: 25" in page
    assert "Changed meanwhile. It was: on" in page
    assert GateRules.objects.count() == 1
    again = shown_form(refused)
    assert "on_kl" not in again
    client.post(url, again)
    assert gate_settings(project).margins["finished"] == 0.3
    assert "kl" not in gate_settings(project).margins


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("project-settings", {"overlap": "0"}),
        ("project-settings", {"overlap": "11"}),
        ("rules", {"person_share": "0"}),
        ("rules", {"person_share": "101"}),
        ("rules", {"gold_least": "101", "gold_window": "0"}),
    ],
)
def test_values_outside_their_limits_are_named_by_their_field(
    project: Project, admin: User, as_user: As, name: str, change: dict[str, str]
) -> None:
    client, url = as_user(admin), reverse(name, args=["bot"])
    answer = client.post(url, shown_form(client.get(url)) | change)
    assert answer.status_code == 400
    page = texts(answer)
    assert page.count("Choose ") == len(change)
    assert "Constraint" not in page


def test_broken_digests_are_not_compared(project: Project, admin: User, as_user: As) -> None:
    client, url = as_user(admin), reverse("rules", args=["bot"])
    form = shown_form(client.get(url))
    for seen in ("", "{", "[]", "[" * 9_000, '{"gold_every": {}}'):
        assert client.post(url, form | {"seen": seen}).status_code in (302, 409)


def test_settings_changed_between_reading_and_writing_are_not_overwritten(
    project: Project, admin: User
) -> None:
    stale = Project.objects.get()
    project_change(project=project, by=admin, changes={"name": "A"})
    with pytest.raises(Conflict):
        project_change(project=project, by=admin, changes={"name": "B"}, before=stale)
    project_change(project=project, by=admin, changes={"overlap": 2}, before=stale)


def test_project_chooses_an_allowed_launcher_and_a_limit_of_its_runs(
    project: Project, admin: User, as_user: As, settings: Settings
) -> None:
    settings.TRAINER_LAUNCHERS = ["process", "accelerate"]
    client, url = as_user(admin), reverse("project-settings", args=["bot"])
    shown = shown_form(client.get(url))
    saved = shown | {"launcher": "accelerate", "run_hours": "2.5"}
    assert client.post(url, saved).status_code == 302
    project.refresh_from_db()
    assert (project.launcher, project.run_hours) == ("accelerate", 2.5)

    refused = client.post(url, shown_form(client.get(url)) | {"launcher": "ray", "run_hours": "0"})
    assert refused.status_code == 400
    assert "ray is not one of the available choices" in texts(refused)
    assert "Choose 0.1 to 720" in texts(refused)

    # the installation allows it no more: the page still opens and can be saved
    settings.TRAINER_LAUNCHERS = ["process"]
    shown = shown_form(client.get(url))
    assert client.post(url, shown | {"launcher": "", "run_hours": ""}).status_code == 302
    project.refresh_from_db()
    assert (project.launcher, project.run_hours) == ("", None)


def test_links_at_the_side_lead_to_every_section(
    project: Project, admin: User, as_user: As
) -> None:
    page = as_user(admin).get(reverse("project-settings", args=["bot"])).content.decode()

    links = re.findall(r'<li><a href="#([\w-]+)"', page.split('class="sections"')[1])
    sections = re.findall(r'<section class="card padded stack" aria-labelledby="([\w-]+)"', page)
    assert links == sections
    assert len(links) == len(set(links)) == 15
    assert all(f'id="{name}"' in page for name in links)
