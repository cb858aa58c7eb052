"""Answers of other systems, under names of their own."""

from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from feedback_app.accounts.models import Scope, User
from feedback_app.api.data import services
from feedback_app.feedback.models import Completion, Project
from feedback_app.feedback.tokens.services import token_create
from tests.api.data.test_data_api import HELLO, post
from tests.api.gateway_client import Program, fault

pytestmark = pytest.mark.django_db


@pytest.fixture
def program(project: Project, admin: User) -> Program:
    return Program(*token_create(project=project, name="Sync", scopes=list(Scope), by=admin))


def add(program: Program, version: str, text: str = "Good day.") -> Any:
    item = {"messages": HELLO, "text": text, "version": version, "queued": True}
    return post(program, "completions", {"completions": [item]})


def test_answer_of_another_system_is_judged_under_its_name(program: Program) -> None:
    answer = add(program, "other-model 7: large")

    assert answer.status_code == 200
    completion = Completion.objects.get()
    assert (completion.version, completion.queued) == ("other-model 7: large", True)
    listed = program.get("/api/v1/projects/bot/completions?version=other-model+7:+large").json()
    assert [row["id"] for row in listed["data"]] == [completion.pk]


def test_votes_on_another_system_are_shown_beside_the_releases(
    program: Program, admin: User, client: Client
) -> None:
    completion = add(program, "other-model").json()["data"][0]["id"]
    vote = {"completion_id": completion, "verdict": "up", "user": "jo"}
    assert post(program, "votes", {"votes": [vote]}).status_code == 200
    client.force_login(admin)

    page = client.get(reverse("releases", args=["bot"])).content.decode()

    assert "Other systems" in page
    assert "other-model" in page
    assert "<strong>100 %</strong> up of 1" in page


@pytest.mark.parametrize("version", ["bot@7", "other@1", "Live", "EDITED", "Base"])
def test_names_of_versions_of_projects_are_not_for_other_systems(
    version: str, program: Program
) -> None:
    assert fault(add(program, version))[0] == 404
    assert not Completion.objects.exists()


@pytest.mark.parametrize("version", ["<b>x</b>", "=cmd", " x", "a\nb", "x\n", "модель"])
def test_name_with_other_characters_is_refused(version: str, program: Program) -> None:
    assert fault(add(program, version)) == (400, "invalid_value", "completions[0].version")


def test_number_of_names_is_bounded(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "VERSIONS_MOST", 2)
    for name in ("one", "two"):
        assert add(program, name).status_code == 200

    assert fault(add(program, "three"))[:2] == (400, "too_many_versions")
    assert add(program, "two", text="Another").status_code == 200
