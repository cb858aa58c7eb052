"""response_format: passed to engines that keep to it, refused where they do not."""

from typing import Any

import pytest
from pytest_django import Settings

from feedback_app.feedback.models import Completion
from tests.api.gateway.conftest import BASE
from tests.api.gateway_client import Program, fault

pytestmark = pytest.mark.django_db

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
FORMAT = {
    "type": "json_schema",
    "json_schema": {"name": "place", "schema": SCHEMA, "strict": True},
}
Bodies = list[dict[str, Any]]


@pytest.mark.parametrize("format_", [FORMAT, {"type": "json_object"}])
@pytest.mark.parametrize("stream", [False, True])
def test_format_reaches_an_engine_that_keeps_to_it(
    format_: dict[str, Any],
    stream: bool,
    program: Program,
    asked: Bodies,
    settings: Settings,
) -> None:
    settings.ENGINE_JSON = [BASE]

    answer = program.ask(response_format=format_, stream=stream)

    assert answer.status_code == 200
    said = b"".join(answer.streaming_content) if answer.streaming else answer.content
    assert b"It rains." in said
    [sent] = asked
    assert sent["response_format"] == format_
    assert Completion.objects.get().text == "It rains."


@pytest.mark.parametrize(
    "tools", [{}, {"tools": [{"type": "function", "function": {"name": "a"}}]}]
)
def test_engine_without_formats_refuses_with_the_reason(
    tools: dict[str, Any],
    program: Program,
    asked: Bodies,
    settings: Settings,
) -> None:
    settings.ENGINE_JSON = ["another"]

    refused = program.ask(response_format=FORMAT, **tools)

    assert fault(refused) == (400, "format_not_supported", "response_format")
    assert not asked
    assert program.ask(response_format={"type": "text"}).status_code == 200
    assert "response_format" not in asked[0]


@pytest.mark.parametrize(
    "format_",
    [
        {"type": "json_schema"},
        {"type": "json_object", "json_schema": FORMAT["json_schema"]},
        {"type": "json_schema", "json_schema": {"name": "a b", "schema": {}}},
        {"type": "json_schema", "json_schema": {"name": "a", "schema": {}, "more": 1}},
        {"type": "json_schema", "json_schema": {"name": "a", "schema": {"d": "x" * 20_000}}},
        {"type": "xml"},
    ],
)
def test_formats_that_are_none_are_refused(
    format_: dict[str, Any],
    program: Program,
    asked: Bodies,
    settings: Settings,
) -> None:
    settings.ENGINE_JSON = [BASE]

    assert program.ask(response_format=format_).status_code == 400
    assert not asked
