"""Exports of other products: recognised, shown in the preview, imported; and hostile ones."""

import io
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.management import call_command
from django.test import Client
from django.urls import reverse
from hypothesis import given
from hypothesis import strategies as st

from feedback_app.accounts.models import Scope, User
from feedback_app.feedback.imports import json_rows
from feedback_app.feedback.imports.chunks import in_chunks
from feedback_app.feedback.imports.json_rows import JsonRows, objects
from feedback_app.feedback.imports.opening import open_rows
from feedback_app.feedback.imports.readers import Record, Unreadable
from feedback_app.feedback.imports.recognition import Labels, RowRefused, recognise
from feedback_app.feedback.models import Example, ImportJob, Project
from feedback_app.feedback.tasks import import_file
from feedback_app.feedback.tokens.services import token_create

SAMPLES = Path(__file__).parent / "samples"
As = Callable[[User], Client]
PLUTO, MARS = (
    ("Is Pluto a planet?", "It is a dwarf planet.", True),
    ("Is Mars a star?", "Yes.", False),
)
VENUS = ("Is Venus hot?", "Very.", True)

#: By file: the format's name, the examples as (question, answer, desirable), the refused rows.
EXPECTED: dict[str, tuple[str, list[tuple[str, str, bool]], list[int]]] = {
    "open_webui.json": (
        "Open WebUI feedback",
        [
            ("And my bill? {", 'Under "Bills" \\ 2026.', True),
            ("Is Pluto a planet?", "Yes.", False),
        ],
        [3],
    ),
    "librechat.json": (
        "LibreChat conversation",
        [PLUTO, ("And Mars?", "Mars is a star.", False)],
        [],
    ),
    "langfuse.json": ("Langfuse trace", [PLUTO, MARS, VENUS], [4, 5]),
    "langfuse_scores.jsonl": ("Langfuse trace", [], [1]),
    "argilla.json": ("Argilla record", [PLUTO, MARS], [3, 4]),
    "argilla_flat.jsonl": ("Argilla record", [PLUTO], [2]),
    "openai_log.jsonl": ("OpenAI feedback log", [PLUTO, MARS, VENUS], [4, 5]),
}


def stored() -> list[tuple[str, str, bool]]:
    rows = Example.objects.order_by("pk").select_related("completion__prompt")
    return [
        (row.completion.prompt.messages[-1]["content"], row.completion.text, row.desirable)
        for row in rows
    ]


@pytest.mark.django_db
@pytest.mark.parametrize("name", EXPECTED)
def test_sample_is_named_in_the_preview_and_imported(
    name: str, project: Project, admin: User, as_user: As
) -> None:
    product, examples, refused = EXPECTED[name]
    client = as_user(admin)
    file = SimpleUploadedFile(name, (SAMPLES / name).read_bytes())
    page = client.post(reverse("imports", args=["bot"]), {"file": file}, follow=True)
    job = ImportJob.objects.get()
    text = page.content.decode()
    assert f"Recognised: <strong>{product}</strong>" in text
    assert job.columns == {}

    # as a browser posts it: the whole form, as it was shown
    fields = {field.name: field.value() or "" for field in page.context["form"]}
    client.post(reverse("import-start", args=["bot", job.pk]), fields)
    import_file(job.pk)

    assert stored() == examples
    assert list(job.refusals.order_by("pk").values_list("number", flat=True)) == refused
    job.refresh_from_db()
    assert (job.status, job.imported, job.refused) == ("done", len(examples), len(refused))


@pytest.mark.django_db
def test_system_prompt_and_earlier_turns_are_kept(project: Project) -> None:
    call_command("import_examples", SAMPLES / "open_webui.json", project="bot")
    call_command("import_examples", SAMPLES / "openai_log.jsonl", project="bot")

    first, *_, pluto, _, _ = Example.objects.order_by("pk").select_related("completion__prompt")
    assert [turn["content"] for turn in first.completion.prompt.messages] == [
        "Where is my order?",
        'In "Orders".',
        "And my bill? {",
    ]
    assert first.completion.system_prompt == "Be brief."
    assert pluto.completion.system_prompt == "Be brief."


@pytest.mark.django_db
def test_data_api_takes_an_export_as_it_is(project: Project, admin: User) -> None:
    _, secret = token_create(
        project=project, name="Loader", scopes=[Scope.DATA_READ, Scope.DATA_WRITE], by=admin
    )
    response = Client().post(
        "/api/v1/projects/bot/imports",
        (SAMPLES / "langfuse.json").read_bytes(),
        content_type="application/octet-stream",
        headers={"Authorization": f"Bearer {secret}"},
    )
    assert response.status_code == 200, response.content
    import_file(ImportJob.objects.get().pk)

    assert stored() == EXPECTED["langfuse.json"][1]


@pytest.mark.django_db
def test_importing_again_adds_nothing(project: Project) -> None:
    for _ in range(2):
        call_command("import_examples", SAMPLES / "librechat.json", project="bot")

    assert Example.objects.count() == 2


@pytest.mark.django_db
def test_mapping_takes_the_place_of_the_format(project: Project, admin: User, as_user: As) -> None:
    row = {"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]}
    content = json.dumps(row | {"rating": 1, "good": "no"}).encode()
    client = as_user(admin)
    page = client.post(
        reverse("imports", args=["bot"]),
        {"file": SimpleUploadedFile("log.jsonl", content)},
        follow=True,
    )
    fields = {field.name: field.value() or "" for field in page.context["form"]}
    job = ImportJob.objects.get()
    client.post(reverse("import-start", args=["bot", job.pk]), fields | {"label": "good"})
    import_file(job.pk)

    assert stored() == [("Q", "A", False)]


def test_labels_give_a_rating_its_meaning() -> None:
    rows = (SAMPLES / "openai_log.jsonl").read_text().splitlines()
    record = Record(1, json.loads(rows[3]))
    with pytest.raises(RowRefused, match="'4' is neither up nor down"):
        recognise(record)

    found = recognise(record, Labels(up=frozenset({"4", "5"}), down=frozenset({"1", "2"})))

    assert found.candidates[0].verdict == "up"
    worst = Record(1, record.value | {"rating": 1})
    assert recognise(worst, Labels(down=frozenset({"1"}))).candidates[0].verdict == "down"


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [{"role": "user", "content": "Q"}], "topic": "x", "score": 7},
        {"prompt": "Q", "rating": 5},
        {"prompt": "Q", "completion": "A", "label": True, "scores": []},
    ],
)
def test_rows_of_our_own_formats_stay_what_they_are(row: dict[str, Any]) -> None:
    assert recognise(Record(1, row)).shape in ("Prompts only", "Examples with labels")


@pytest.mark.parametrize(
    "rating", [10**400, -(10**400), 1e308, 0.5], ids=["large", "small", "large float", "half"]
)
def test_number_that_is_no_thumb_is_refused(rating: float) -> None:
    said = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]

    with pytest.raises(RowRefused, match="neither up nor down"):
        recognise(Record(1, {"messages": said, "rating": rating}))


def test_arguments_of_a_call_that_are_nested_too_deeply_are_refused() -> None:
    deep: list[Any] = []
    for _ in range(5_000):
        deep = [deep]
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": {"x": deep}}}
    turns = [{"role": "user", "content": "Why?"}, {"role": "assistant", "tool_calls": [call]}]

    with pytest.raises(RowRefused, match="nested too deeply"):
        recognise(Record(1, {"prompt": [*turns, {"role": "tool", "content": "1"}]}))


def test_loop_in_a_message_tree_ends() -> None:
    tree = [
        {"messageId": "a", "parentMessageId": "b", "text": "Q", "isCreatedByUser": True},
        {
            "messageId": "b",
            "parentMessageId": "a",
            "text": "A",
            "isCreatedByUser": False,
            "feedback": {"rating": "thumbsUp"},
        },
    ]
    found = recognise(Record(1, {"conversationId": "c", "messages": tree}))

    assert [m["content"] for m in found.candidates[0].messages] == ["Q"]


def test_thumbs_on_all_of_a_long_conversation_are_bounded() -> None:
    tree = [
        {
            "messageId": str(n),
            "parentMessageId": str(n - 1),
            "text": "x",
            "isCreatedByUser": n % 2 == 0,
            "feedback": {"rating": "thumbsUp"},
        }
        for n in range(3_000)
    ]
    with pytest.raises(RowRefused, match="too many thumbs"):
        recognise(Record(1, {"conversationId": "c", "messages": tree}))


# -- hostile input

KEYS = (
    "type data meta snapshot rating chat history messages message_id conversationId messagesTree "
    "feedback scores input output fields responses q.responses q.responses.status value name "
    "request response choices message children parentMessageId messageId content role text"
).split()
VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.sampled_from(
            ["up", "thumbsDown", "[{", '{"messages": 1}', "user", "a", "\x00", "\ud800"]
        ),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(KEYS), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=6))
def test_any_row_is_parsed_or_refused(value: dict[str, Any]) -> None:
    try:
        found = recognise(Record(1, value))
    except RowRefused as refused:
        assert str(refused)
        return
    for candidate in found.candidates:
        "".join([candidate.text or "", *(m["content"] for m in candidate.messages)]).encode()


@pytest.mark.parametrize("name", sorted(EXPECTED))
@given(data=st.data())
def test_damaged_sample_is_read_or_refused(name: str, data: st.DataObject) -> None:
    body = bytearray((SAMPLES / name).read_bytes())
    for _ in range(3):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        for chunk in in_chunks(open_rows(io.BytesIO(bytes(body))).records()):
            assert all(refusal.reason for refusal in chunk.refusals)
    except Unreadable as error:
        assert str(error)


@given(st.lists(VALUES.map(lambda value: {"v": value}), max_size=6), st.integers(1, 40))
def test_array_is_divided_into_its_objects(rows: list[Any], piece: int) -> None:
    texts = [json.dumps(row) for row in rows]
    file = io.BytesIO(("[" + ",\n ".join(texts) + "]").encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_rows, "PIECE", piece)
        found = [part.decode() for part, _ in objects(file)]

    assert found == texts


def test_damaged_object_is_refused_and_the_others_are_read() -> None:
    body = b'[{"prompt": "a"}, {"prompt": nothing}, {"prompt": "c"}]'
    records = list(JsonRows(io.BytesIO(body), {}).records())

    assert [bool(record.fault) for record in records] == [False, True, False]
    assert [record.number for record in records] == [1, 2, 3]


def test_object_beyond_the_limit_is_refused_or_ends_the_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(json_rows, "MAX_ROW", 40)
    monkeypatch.setattr(json_rows, "LARGEST", 80)
    body = b'[{"prompt": "%s"}, {"prompt": "b"}, {"prompt": "%s"}]' % (b"a" * 40, b"c" * 90)
    rows = JsonRows(io.BytesIO(body), {}).records()

    assert next(rows).fault
    assert next(rows).value == {"prompt": "b"}
    with pytest.raises(Unreadable, match="never ends"):
        next(rows)


@pytest.mark.long
def test_large_array_takes_memory_for_one_object(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    row = json.dumps({"prompt": "x" * 1000}).encode()
    with path.open("wb") as file:
        file.write(b"[" + row)
        for _ in range(30_000):
            file.write(b"," + row)
        file.write(b"]")
    with path.open("rb") as file:
        tracemalloc.start()
        count = sum(1 for _ in open_rows(file).records())
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()

    assert count == 30_001
    assert peak < 8_000_000  # of 30 MB


def test_share_and_position_continue_in_an_array() -> None:
    body = json.dumps([{"prompt": str(n)} for n in range(5)]).encode()
    rows = open_rows(io.BytesIO(body))

    assert [record.number for record in rows.records(after=3)] == [4, 5]
    assert rows.share == 1.0
