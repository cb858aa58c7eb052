"""Variables of the chat template and reasoning: saved, refused, and kept by what uses them."""

import json
from collections.abc import Callable

import pytest
from django.test import Client
from django.urls import reverse

from feedback_app.accounts.models import User
from feedback_app.feedback.models import Project
from feedback_app.feedback.projects import template_kwargs
from feedback_app.serving.version_diff.services import conditions_of
from feedback_app.training.gate.evaluation import Look, evaluation_write
from feedback_app.training.runs.execution.inputs import prepare
from feedback_app.training.runs.services import run_request
from tests.feedback.projects.test_settings import shown_form, texts
from trainer.chats import settings as chat
from trainer.config import TrainConfig

As = Callable[[User], Client]
NO_THINKING = {"enable_thinking": False}

pytestmark = pytest.mark.django_db


def test_bounds_and_reserved_names_are_those_of_the_trainer() -> None:
    assert template_kwargs.RESERVED == chat.RESERVED
    assert template_kwargs.MOST == chat.MOST_KWARGS
    assert template_kwargs.CHARACTERS == chat.KWARGS_CHARACTERS


def test_settings_are_saved_and_an_unchanged_form_changes_nothing(
    project: Project, admin: User, as_user: As
) -> None:
    client, url = as_user(admin), reverse("project-settings", args=["bot"])
    form = shown_form(client.get(url))
    assert (form["chat_template_kwargs"], form["reasoning"]) == ("", "read")
    given = form | {"chat_template_kwargs": json.dumps(NO_THINKING), "reasoning": "trained"}
    assert client.post(url, given).status_code == 302
    project.refresh_from_db()
    assert (project.chat_template_kwargs, project.reasoning) == (NO_THINKING, "trained")

    again = shown_form(client.get(url))
    assert client.post(url, again).status_code == 302
    project.refresh_from_db()
    assert project.chat_template_kwargs == NO_THINKING
    # the form of before: its variables would overwrite the new ones
    refused = client.post(url, form | {"chat_template_kwargs": '{"a": 1}'})
    assert refused.status_code == 409
    assert "enable_thinking" in texts(refused)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("[]", "Enter a JSON object"),
        ("{", "Enter a valid JSON"),
        ('{"messages": []}', "cannot be set"),
        ('{"a b": 1}', "cannot be set"),
        (json.dumps({"a": "x" * 2_000}), "2,000 characters"),
        ('{"a": "\\u0000"}', "NUL"),
        ('{"a": NaN}', "NaN"),
        ('{"a": [1e999]}', "Infinity"),
        ('{"a": "\\ud800"}', "Unicode"),
        ('{"a": ' + "[" * 100_000, "in each other"),
        ('{"a": ' + "[" * 500 + "]" * 500 + "}", "in each other"),
    ],
)
def test_variables_that_cannot_be_set_are_refused_beside_the_field(
    given: str, reason: str, project: Project, admin: User, as_user: As
) -> None:
    client, url = as_user(admin), reverse("project-settings", args=["bot"])
    refused = client.post(url, shown_form(client.get(url)) | {"chat_template_kwargs": given})
    assert refused.status_code == 400
    [error] = refused.context["form"].errors["chat_template_kwargs"]
    assert reason in error
    project.refresh_from_db()
    assert project.chat_template_kwargs == {}


def test_run_keeps_and_shows_the_settings_that_it_began_with(
    voted_project: Project, admin: User, as_user: As
) -> None:
    voted_project.chat_template_kwargs, voted_project.reasoning = NO_THINKING, "trained"
    voted_project.save()
    run = run_request(project=voted_project, by=admin)
    Project.objects.filter(pk=voted_project.pk).update(chat_template_kwargs={}, reasoning="read")
    run.refresh_from_db()
    assert run.config["chat_template_kwargs"] == NO_THINKING

    page = texts(as_user(admin).get(reverse("run", args=[run.project.slug, run.number])))
    assert "reasoning trained on" in page
    assert "enable_thinking=False" in page

    prepare(run)
    config = TrainConfig.read(run.directory / "config.json")
    assert config.chat == chat.ChatSettings(NO_THINKING, "trained")
    # the gate compares versions as they will be served
    run.project.refresh_from_db()
    directory = evaluation_write(run, Look(4, 1), base_model="base")
    asked = json.loads((directory / "evaluate.json").read_text())
    assert (asked["chat_template_kwargs"], asked["reasoning"]) == ({}, "read")


def test_answers_of_a_version_diff_belong_to_their_variables(project: Project) -> None:
    before = conditions_of(project)
    project.chat_template_kwargs = NO_THINKING
    assert conditions_of(project) != before
