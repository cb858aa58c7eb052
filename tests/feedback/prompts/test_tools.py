"""Prompts that end with the result of a tool, on the pages that change prompts and make probes."""

from collections.abc import Callable

import pytest
from django.test import Client
from django.urls import reverse

from feedback_app.accounts.models import User
from feedback_app.feedback.models import Probe, Project, Prompt, Source
from feedback_app.feedback.prompts.completions import Answer, completion_create
from feedback_app.feedback.prompts.services import prompt_get_or_create

pytestmark = pytest.mark.django_db
As = Callable[[User], Client]
CALL = {"id": "1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
TALK = [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello."},
    {"role": "user", "content": "And Oslo?"},
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "content": "Rain", "tool_call_id": "1"},
]


@pytest.fixture
def prompt(project: Project) -> Prompt:
    return prompt_get_or_create(project=project, messages=TALK, source=Source.IMPORT)  # type: ignore[arg-type]


def test_page_shows_the_call_and_its_text_cannot_be_changed(
    prompt: Prompt, admin: User, as_user: As
) -> None:
    client, url = as_user(admin), reverse("prompt", args=[prompt.project.slug, prompt.pk])
    page = client.get(url).content.decode()
    assert "Call of weather" in page
    assert "Result of a tool" in page

    refused = client.post(url, {"text": "And Bergen?", "topic": ""})
    assert refused.status_code == 400
    assert "ends with the result of a tool" in refused.content.decode()
    assert client.post(url, {"text": "And Oslo?", "topic": "weather"}).status_code == 302
    prompt.refresh_from_db()
    assert (prompt.messages, prompt.topic) == (TALK, "weather")


def test_probe_from_its_answer_asks_the_question_without_the_call(
    prompt: Prompt, admin: User, as_user: As
) -> None:
    answer = Answer("It rains.", "base", "stop", None, None)
    completion = completion_create(
        project=prompt.project, prompt=prompt, answer=answer, source=Source.SAMPLED
    )
    url = reverse("probes", args=[prompt.project.slug])
    given = {"prompt": "And Oslo?", "kind": "contains", "pattern": "rain", "note": ""}
    saved = as_user(admin).post(url, given | {"completion": completion.pk})
    assert saved.status_code == 302
    assert Probe.objects.get().messages == TALK[:3]
