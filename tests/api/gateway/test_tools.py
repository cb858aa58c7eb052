"""Requests with tools, against a server that calls tools as vLLM does."""

from typing import Any

import pytest
from pytest_django import Settings

from feedback_app.feedback.models import Completion, Prompt
from feedback_app.feedback.prompts.tools import tools_of
from feedback_app.serving.models import Conversation
from feedback_app.training.models import SnapshotItem
from feedback_app.training.snapshots.files import as_line, context
from tests.api.gateway.conftest import BASE
from tests.api.gateway.test_chat import chunks
from tests.api.gateway_client import HELLO, Program, fault

pytestmark = pytest.mark.django_db
TOOLS = [
    {
        "type": "function",
        "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}},
    }
]
CALL = {"id": "call-1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
TALK = [
    *HELLO,
    {"role": "assistant", "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "call-1", "content": "Rain"},
]


def test_call_of_a_tool_is_passed_on_and_back(
    program: Program, asked: list[dict[str, Any]]
) -> None:
    answer = program.ask(tools=TOOLS, tool_choice="auto", messages=TALK).json()

    [sent] = asked
    assert sent["tools"] == TOOLS
    assert sent["tool_choice"] == "auto"
    assert sent["messages"] == [{"role": "system", "content": "Be brief."}, *TALK]
    [choice] = answer["choices"]
    assert (answer["model"], choice["finish_reason"]) == ("base", "tool_calls")
    assert choice["message"]["content"] is None
    [call] = choice["message"]["tool_calls"]
    assert call == {
        "id": "call-9", "type": "function",
        "function": {"name": "weather", "arguments": '{"city": "Oslo"}'},
    }  # fmt: skip
    assert answer["usage"]["total_tokens"] == 7


def test_stream_has_the_engines_events_under_the_versions_name(
    program: Program, asked: list[dict[str, Any]]
) -> None:
    got = chunks(program.ask(tools=TOOLS, stream=True))

    assert {chunk["model"] for chunk in got} == {"base"}
    assert all("token_ids" not in choice for chunk in got for choice in chunk["choices"])
    assert all("usage" not in chunk for chunk in got)
    said = [call for chunk in got for call in chunk["choices"][0]["delta"].get("tool_calls", [])]
    assert len(said) == 3
    counted = chunks(program.ask(tools=TOOLS, stream=True, stream_options={"include_usage": True}))
    assert counted[-1]["usage"]["total_tokens"] == 7


def test_nothing_of_it_is_stored(program: Program, asked: list[dict[str, Any]]) -> None:
    program.ask(tools=TOOLS)

    assert asked
    for model in (Completion, Prompt, Conversation):
        assert not model.objects.exists()  # type: ignore[attr-defined]


@pytest.mark.parametrize("fields", [{"tools": TOOLS}, {"tool_choice": "auto"}])
def test_engine_without_tools_refuses_with_the_reason(
    fields: dict[str, Any], program: Program, asked: list[dict[str, Any]], settings: Settings
) -> None:
    settings.ENGINE_TOOLS = ["another"]

    refused = program.ask(**fields)

    assert fault(refused) == (400, "tools_not_supported", "tools")
    assert "ENGINE_TOOLS" in refused.json()["error"]["message"]
    assert not asked


@pytest.mark.parametrize(
    "message",
    [
        {"role": "assistant"},
        {"role": "user", "content": "x", "tool_calls": [CALL]},
        {"role": "tool", "content": "x"},
        {"role": "user", "content": "x", "tool_call_id": "call-1"},
        {"role": "assistant", "tool_calls": [CALL | {"more": 1}]},
        {"role": "user", "content": None},
    ],
)
def test_messages_that_are_no_calls_are_refused(
    message: dict[str, Any], program: Program, asked: list[dict[str, Any]]
) -> None:
    assert program.ask(messages=[*HELLO, message], tools=TOOLS).status_code == 400
    assert not asked


def test_earlier_calls_are_part_of_a_conversation_that_is_stored(
    program: Program, asked: list[dict[str, Any]], settings: Settings
) -> None:
    settings.ENGINE_TOOLS = []

    answer = program.ask(messages=TALK).json()

    assert answer["choices"][0]["message"]["content"] == "It rains."
    [sent] = asked
    assert sent["messages"][1:] == [HELLO[0], {**TALK[1], "content": ""}, TALK[2]]
    completion = Completion.objects.get()
    assert completion.prompt.messages == sent["messages"][1:]
    # what is trained on is what was sent
    assert context(completion) == sent["messages"]


@pytest.mark.parametrize("engines", [[], [BASE]])
def test_definitions_are_stored_where_no_tool_may_be_called(
    engines: list[str], program: Program, asked: list[dict[str, Any]], settings: Settings
) -> None:
    settings.ENGINE_TOOLS = engines

    answer = program.ask(tools=TOOLS, tool_choice="none").json()

    [sent] = asked
    assert (sent["tools"], sent["tool_choice"]) == (TOOLS, "none")
    assert sent["messages"][1:] == HELLO
    completion = Completion.objects.get(pk=answer["completion_id"])
    assert tools_of(completion.prompt.messages) == TOOLS
    line = as_line(SnapshotItem(completion=completion, desirable=True, weight=1.0))
    assert (line["prompt"], line["tools"]) == (sent["messages"], TOOLS)
    # other definitions, or none, are another prompt
    program.ask(tools=TOOLS, tool_choice="none")
    program.ask(tools=[{"type": "function", "function": {"name": "hours"}}], tool_choice="none")
    program.ask()
    assert Prompt.objects.count() == 3


def test_definitions_go_on_with_a_conversation(
    program: Program, asked: list[dict[str, Any]]
) -> None:
    program.ask(tools=TOOLS, tool_choice="none", user="a")
    talk = [
        *HELLO,
        {"role": "assistant", "content": "It rains."},
        {"role": "user", "content": "And Bergen?"},
    ]
    program.ask(tools=TOOLS, tool_choice="none", user="a", messages=talk)
    assert Conversation.objects.get().turns.count() == 2


@pytest.mark.parametrize(
    "tools",
    [
        [*TOOLS, *TOOLS],
        [{"type": "function", "function": {"name": "a", "parameters": {"b": "c" * 100_000}}}],
    ],
    ids=["twice", "huge"],
)
def test_definitions_that_cannot_be_stored_are_refused(
    tools: list[dict[str, Any]], program: Program, asked: list[dict[str, Any]]
) -> None:
    refused = program.ask(tools=tools, tool_choice="none")
    assert refused.status_code == 400
    assert "tool" in refused.json()["error"]["message"]
    assert not asked
    assert not Prompt.objects.exists()


def test_variables_of_the_chat_template_reach_the_engine(
    program: Program, asked: list[dict[str, Any]]
) -> None:
    program.ask()
    assert "chat_template_kwargs" not in asked[-1]
    project = program.token.project
    project.chat_template_kwargs = {"enable_thinking": False}
    project.save()
    for fields in ({}, {"stream": True}, {"tools": TOOLS}):
        chunks(program.ask(**fields)) if "stream" in fields else program.ask(**fields)
        assert asked[-1]["chat_template_kwargs"] == {"enable_thinking": False}


@pytest.mark.parametrize("kind", ["image_url", "input_audio", "file"])
@pytest.mark.parametrize("tools", [None, TOOLS])
def test_content_that_is_no_text_is_refused_with_a_sentence(
    kind: str, tools: Any, program: Program, asked: list[dict[str, Any]]
) -> None:
    parts = [{"type": "text", "text": "What is it?"}, {"type": kind, kind: {"url": "x"}}]
    fields = {} if tools is None else {"tools": tools}

    refused = program.ask(messages=[{"role": "user", "content": parts}], **fields)

    assert refused.status_code == 400
    message = refused.json()["error"]["message"]
    assert f"{kind} is not supported: the models here read text only" in message
    assert not asked


def test_engine_that_is_gone_is_a_503(
    program: Program, asked: list[dict[str, Any]], settings: Settings
) -> None:
    settings.ENGINES = {BASE: "http://127.0.0.1:9"}

    for stream in (False, True):
        assert fault(program.ask(tools=TOOLS, stream=stream))[:2] == (503, "engine_unavailable")
