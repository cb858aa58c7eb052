"""The examples on the page of API tokens are requests that the gateway accepts."""

import html
import json
import re
from collections.abc import Callable

import pytest
from django.test import Client
from django.urls import reverse

from feedback_app.accounts.models import User
from feedback_app.api.gateway.schemas import ChatAsk, FeedbackAsk
from feedback_app.feedback.models import Project

pytestmark = pytest.mark.django_db

As = Callable[[User], Client]


@pytest.fixture
def examples(project: Project, admin: User, as_user: As) -> dict[str, str]:
    page = as_user(admin).get(reverse("tokens", args=[project.slug])).content.decode()
    pattern = r"<summary>([^<]+)</summary>\s*<div class=\"prose\"><pre><code>(.*?)</code>"
    found = re.findall(pattern, page, re.DOTALL)
    return {name: html.unescape(code) for name, code in found}


def test_there_is_one_for_each_language(examples: dict[str, str]) -> None:
    assert list(examples) == ["curl", "Python", "JavaScript"]
    assert all("http://testserver/v1" in code for code in examples.values())


def test_bodies_of_curl_are_valid(examples: dict[str, str]) -> None:
    chat, feedback = (json.loads(body) for body in re.findall(r"-d '(.*)'", examples["curl"]))
    assert ChatAsk.model_validate(chat).model == "live"
    assert FeedbackAsk.model_validate(feedback).verdict == "up"


def test_python_compiles(examples: dict[str, str]) -> None:
    found = compile(examples["Python"], "example", "exec")
    assert {"openai", "httpx"} <= set(found.co_names)
