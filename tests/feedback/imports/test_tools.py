"""Conversations with calls of tools come in, go out and come in again unchanged; images do not."""

import hashlib
import io
import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command

from feedback_app.accounts.models import User
from feedback_app.feedback.exports.parquet import parquet_write
from feedback_app.feedback.exports.rows import ExportRow, csv_lines, jsonl_lines, project_rows
from feedback_app.feedback.imports.readers import Record
from feedback_app.feedback.imports.recognition import RowRefused, recognise
from feedback_app.feedback.models import Completion, Project, Prompt, Source
from feedback_app.feedback.prompts.services import content_hash, prompt_get_or_create
from feedback_app.feedback.prompts.tools import tools_of, tools_text, with_tools, without_tools
from feedback_app.training.snapshots.files import context
from trainer.data.messages import messages_of

USER = {"role": "user", "content": "And Oslo?"}
CALL = {
    "id": "call00001",
    "type": "function",
    "function": {"name": "weather", "arguments": '{"city": "Oslo"}'},
}
CALLING = {"role": "assistant", "content": None, "tool_calls": [CALL]}
STORED = {**CALLING, "content": ""}
RESULT = {"role": "tool", "tool_call_id": "call00001", "content": "Rain"}
TALK = [USER, CALLING, RESULT]
#: The same as training data often has it: no ids, arguments as an object.
LOOSE = [
    USER,
    {"role": "assistant", "tool_calls": [{"function": {"name": "weather", "arguments": {}}}]},
    {"role": "tool", "name": "weather", "content": [{"type": "text", "text": "Rain"}]},
]
DEFINITIONS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "The weather of a city",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        },
    },
    {"type": "function", "function": {"name": "hours"}},
]
IMAGE = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}


def row(prompt: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    return {"prompt": prompt, "completion": "It rains.", "label": True, **more}


def messages(value: dict[str, Any]) -> list[dict[str, Any]]:
    [candidate] = recognise(Record(1, value, "")).candidates
    return [dict(message) for message in candidate.messages]


def refusal(value: dict[str, Any]) -> str:
    with pytest.raises(RowRefused) as refused:
        recognise(Record(1, value, ""))
    return str(refused.value)


def imported(path: Path, project: Project, by: User) -> None:
    call_command("import_examples", str(path), project=project.slug, by=by.email)


def test_calls_and_results_are_kept() -> None:
    assert messages(row(TALK)) == [USER, STORED, RESULT]


def test_missing_ids_are_given_and_arguments_become_text() -> None:
    [_, asked, result] = messages(row(LOOSE))
    [call] = asked["tool_calls"]
    assert call["function"] == {"name": "weather", "arguments": "{}"}
    assert result["tool_call_id"] == call["id"]
    assert len(call["id"]) == 9  # the length that Mistral's templates ask for
    assert result["content"] == "Rain"


def test_messages_of_an_openai_log_keep_their_calls() -> None:
    log = {"messages": [*TALK, {"role": "assistant", "content": "It rains."}], "rating": 1}
    assert messages(log) == [USER, STORED, RESULT]


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [
        ([USER, RESULT], "a tool's result without the call before it"),
        ([USER, CALLING], "the last message must be the user's, or a tool's result"),
        ([{**USER, "tool_calls": [CALL]}], "not an assistant's calls"),
        ([USER, {**CALLING, "tool_calls": [{"function": {}}]}, RESULT], "without a name"),
        ([USER, {**CALLING, "tool_calls": "x"}, RESULT], "tool_calls that are no list"),
        ([USER, {"role": "assistant", "content": None}, USER], "no role and content as text"),
    ],
)
def test_calls_that_no_template_can_write_are_refused(prompt: Any, reason: str) -> None:
    assert reason in refusal(row(prompt))


def test_answer_that_is_a_call_is_refused() -> None:
    talk = [USER, {**CALLING, "content": "One moment."}]
    assert "only answers in text can be judged" in refusal({"messages": talk, "label": True})


@pytest.mark.parametrize(
    "value",
    [
        row([{"role": "user", "content": [{"type": "text", "text": "What?"}, IMAGE]}]),
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "What?"}, IMAGE]},
                {"role": "assistant", "content": "A cat."},
            ],
            "rating": 1,
        },
        {
            "conversationId": "c",
            "messages": [
                {
                    "messageId": "1",
                    "isCreatedByUser": True,
                    "text": "What?",
                    "content": [{"type": "text", "text": "What?"}, IMAGE],
                },
                {
                    "messageId": "2",
                    "parentMessageId": "1",
                    "text": "A cat.",
                    "feedback": {"rating": "thumbsUp"},
                },
            ],
        },
        {
            "type": "rating",
            "data": {"rating": 1},
            "meta": {"message_id": "b"},
            "snapshot": {
                "chat": {
                    "history": {
                        "messages": {
                            "a": {
                                "id": "a",
                                "role": "user",
                                "content": "What?",
                                "files": [{"type": "image", "url": "x"}],
                            },
                            "b": {
                                "id": "b",
                                "parentId": "a",
                                "role": "assistant",
                                "content": "A cat.",
                            },
                        }
                    }
                }
            },
        },
    ],
    ids=["columns", "openai", "librechat", "open-webui"],
)
def test_image_is_refused_and_never_left_out(value: dict[str, Any]) -> None:
    assert "image" in refusal(value)


def test_conversations_that_differ_in_their_calls_alone_are_two() -> None:
    other = {**STORED, "tool_calls": [{**CALL, "id": "call00002"}]}
    result = {**RESULT, "tool_call_id": "call00002"}
    assert content_hash([USER, STORED, RESULT]) != content_hash([USER, other, result])  # type: ignore[list-item]


def test_hash_of_a_conversation_without_tools_is_as_before() -> None:
    as_before = hashlib.sha256(b'[["user","Hi"]]').hexdigest()
    assert content_hash([{"role": "user", "content": "Hi"}]) == as_before


@pytest.mark.django_db
@pytest.mark.parametrize("as_format", ["jsonl", "parquet", "csv"])
def test_export_of_an_import_is_imported_as_the_same(
    as_format: str, project: Project, admin: User, tmp_path: Path
) -> None:
    source = tmp_path / "rows.jsonl"
    rows = [row([{"role": "user", "content": "Hi"}]), row(TALK), row(TALK, tools=DEFINITIONS)]
    source.write_text("".join(json.dumps(each) + "\n" for each in rows))
    imported(source, project, admin)
    before = exported(project)
    file = tmp_path / f"export.{as_format}"
    with file.open("w+b") as out:
        if as_format == "parquet":
            parquet_write(project_rows(project), out)
        else:
            lines = {"jsonl": jsonl_lines, "csv": csv_lines}[as_format]
            out.writelines(lines(project_rows(project)))

    Completion.objects.all().delete()
    Prompt.objects.all().delete()
    imported(file, project, admin)

    assert exported(project) == before
    hi = {"role": "user", "content": "Hi"}
    assert [each.prompt[-1] for each in before] == [RESULT, RESULT, hi]
    assert [each.tools for each in before] == [[], DEFINITIONS, []]
    # the trainer reads the same messages, and writes them as they were
    for completion in Completion.objects.select_related("prompt"):
        given = without_tools(context(completion))
        assert [message.as_dict() for message in messages_of(given)] == given


@pytest.mark.django_db
def test_parquet_without_calls_has_no_columns_of_tools(project: Project, admin: User) -> None:
    import pyarrow.parquet as pq

    plain = [{"role": "user", "content": "Hi"}]
    said = [{"role": "assistant", "content": "Ho"}]
    without = ExportRow(plain, said, label=True, weight=1.0, split="train")
    with_calls = ExportRow([USER, STORED, RESULT], said, label=True, weight=1.0, split="train")

    def fields(rows: list[ExportRow]) -> tuple[set[str], list[Any]]:
        file = io.BytesIO()
        parquet_write(rows, file)
        table = pq.read_table(file)
        value_type = table.schema.field("prompt").type.value_type
        return {field.name for field in value_type}, table.to_pylist()

    assert fields([without] * 1_500)[0] == {"role", "content"}
    names, rows = fields([*[without] * 1_500, with_calls, without])
    assert names == {"role", "content", "tool_calls", "tool_call_id"}
    assert len(rows) == 1_502
    assert rows[1_500]["prompt"][1]["tool_calls"] == [CALL]


def exported(project: Project) -> list[ExportRow]:
    return sorted(project_rows(project), key=lambda each: str((each.prompt, each.tools)))


# -- definitions


@pytest.mark.parametrize(
    "given",
    [
        DEFINITIONS,
        json.dumps(DEFINITIONS),
        [each["function"] for each in DEFINITIONS],
    ],
    ids=["list", "text", "bare"],
)
@pytest.mark.parametrize("shape", ["example", "pair", "prompt", "log"])
def test_definitions_are_kept_with_the_first_message(given: Any, shape: str) -> None:
    value: dict[str, Any] = {
        "example": row([USER]),
        "pair": {"prompt": [USER], "chosen": "Yes.", "rejected": "No."},
        "prompt": {"prompt": "And Oslo?"},
        "log": {"messages": [USER], "response": "It rains.", "rating": 1},
    }[shape]
    candidates = recognise(Record(1, {**value, "tools": given}, "")).candidates
    assert len(candidates) == (2 if shape == "pair" else 1)
    for candidate in candidates:
        assert tools_of(candidate.messages) == DEFINITIONS
        assert without_tools(candidate.messages) == [USER]


def test_definitions_of_a_logged_request_are_kept() -> None:
    request = {"messages": [USER], "tools": DEFINITIONS}
    value = {"request": request, "response": "It rains.", "rating": "up"}
    [candidate] = recognise(Record(1, value, "")).candidates
    assert tools_of(candidate.messages) == DEFINITIONS


@pytest.mark.parametrize("given", [None, [], "", "[]", " "])
def test_no_definitions_leave_the_conversation_as_it_is(given: Any) -> None:
    assert messages(row([USER], tools=given)) == [USER]


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth):
        value = {"a": value}
    return value


def function(**fields: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "a", **fields}}


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"name": "a"}, "no list"),
        (7, "no list"),
        ("{", "no valid JSON"),
        ("[" * 90_000, "no valid JSON"),
        ("[" + "1," * 60_000 + "1]", "120,003 characters: at most 100,000"),
        ([function(name=f"f{n}") for n in range(65)], "65 definitions: at most 64"),
        (["weather"], "tool 1 is no definition"),
        ([function(), {"type": "retrieval"}], "tool 2 is no definition"),
        ([{**function(), "more": 1}], "tool 1 is no definition"),
        ([function(name="")], "tool 1 needs a name"),
        ([function(name="a" * 65)], "tool 1 needs a name"),
        ([function(name=["a"])], "tool 1 needs a name"),
        ([function(), function()], "two tools are called a"),
        ([function(description=1)], "a description that is no text"),
        ([function(parameters=[1])], "parameters that are no JSON schema"),
        ([function(parameters=nested(50))], "more than 32 lists and objects in each other"),
        ([function(parameters=nested(5_000))], "more than 32 lists and objects in each other"),
        ([function(description="x" * 100_001)], "characters: at most 100,000"),
        ([function(description="\x00")], "NUL"),
        ([function(description="\ud800")], "not in JSON"),
        ([function(parameters={"a": float("nan")})], "not in JSON"),
        ([function(parameters={"a": date(2026, 1, 1)})], "not in JSON"),
        ([function(name="a b"), function(description=1)], "tool 2 (a) has a description"),
    ],
)
def test_definitions_that_cannot_be_kept_are_refused_with_the_reason(given: Any, why: str) -> None:
    assert why in refusal(row([USER], tools=given))


@pytest.mark.django_db
def test_order_of_keys_is_that_of_the_file(project: Project) -> None:
    """A chat template writes it; PostgreSQL's jsonb would sort it."""
    given = [function(parameters={"zebra": 1, "a": 2}, description="x")]
    asked: Any = with_tools([USER], tools_text(given))
    kept = prompt_get_or_create(project=project, messages=asked, source=Source.IMPORT)
    kept.refresh_from_db()
    assert json.dumps(tools_of(kept.messages)) == json.dumps(given)
