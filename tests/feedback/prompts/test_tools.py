"""Prompts that end with the result of a tool, on the pages that change prompts and make probes."""

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from feedback_app.accounts.models import User
from feedback_app.feedback.models import Probe, Project, Prompt, Source
from feedback_app.feedback.prompts.completions import Answer, completion_create
from feedback_app.feedback.prompts.services import messages_check, prompt_get_or_create
from feedback_app.feedback.prompts.tools import tools_of, tools_text, with_tools
from feedback_app.web.errors import UserError

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


# -- definitions

HOSTILE = "<script>alert(1)</script>"
DEFINITIONS = [{"type": "function", "function": {"name": "weather", "description": HOSTILE}}]


@pytest.fixture
def defined(project: Project) -> Prompt:
    """A prompt of a single message, with definitions of tools."""
    messages: Any = with_tools([{"role": "user", "content": "Oslo?"}], tools_text(DEFINITIONS))
    return prompt_get_or_create(project=project, messages=messages, source=Source.IMPORT)


def test_definitions_are_folded_and_escaped_on_the_prompts_page(
    defined: Prompt, admin: User, as_user: As
) -> None:
    url = reverse("prompt", args=[defined.project.slug, defined.pk])
    page = as_user(admin).get(url).content.decode()
    assert "<summary>Definitions of 1 tool</summary>" in page
    assert HOSTILE not in page
    assert "&lt;script&gt;" in page


def test_other_text_keeps_the_definitions(defined: Prompt, admin: User, as_user: As) -> None:
    url = reverse("prompt", args=[defined.project.slug, defined.pk])
    assert as_user(admin).post(url, {"text": "Bergen?", "topic": ""}).status_code == 302
    new = Prompt.objects.get(retired_at=None)
    assert (new.title, tools_of(new.messages)) == ("Bergen?", DEFINITIONS)


def test_probe_from_its_answer_keeps_the_definitions(
    defined: Prompt, admin: User, as_user: As
) -> None:
    answer = Answer("It rains.", "base", "stop", None, None)
    completion = completion_create(
        project=defined.project, prompt=defined, answer=answer, source=Source.SAMPLED
    )
    given = {"prompt": "Oslo?", "kind": "contains", "pattern": "rain", "note": ""}
    url = reverse("probes", args=[defined.project.slug])
    saved = as_user(admin).post(url, given | {"completion": completion.pk})
    assert saved.status_code == 302
    assert Probe.objects.get().messages == defined.messages


def test_only_the_first_message_has_definitions() -> None:
    later: Any = [*TALK[:2], {**TALK[2], "tools": tools_text(DEFINITIONS)}]
    with pytest.raises(UserError, match="belong to the first message"):
        messages_check(later)
