"""Files through the data API: upload, import, export, and limits per token and project."""

import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from pytest_django import Settings

from feedback_app.accounts.models import AuditEvent, Scope, User
from feedback_app.api.errors import ApiError
from feedback_app.feedback.exports import rows as export_rows
from feedback_app.feedback.models import Example, ImportJob, Project, Vote
from feedback_app.feedback.models.webhooks import Event
from feedback_app.feedback.tasks import import_file
from feedback_app.feedback.tokens.services import token_create, token_revoke
from feedback_app.feedback.webhooks.services import webhook_create
from feedback_app.training.runs.services import run_request
from tests.api.gateway_client import Program, fault

pytestmark = [pytest.mark.django_db, pytest.mark.slow]
ROWS = [
    {"prompt": "Q1", "completion": "=1+1", "label": True},
    {"prompt": "Q2", "chosen": "good", "rejected": "bad"},
    {"prompt": "Q3", "completion": "so so", "label": "maybe"},
]


@pytest.fixture(autouse=True)
def artifacts(settings: Settings, tmp_path: Path) -> Path:
    settings.ARTIFACT_ROOT = tmp_path
    return tmp_path


@pytest.fixture
def program(project: Project, admin: User) -> Program:
    scopes = [Scope.DATA_READ, Scope.DATA_WRITE]
    return Program(*token_create(project=project, name="Sync", scopes=scopes, by=admin))


def jsonl(rows: list[Any] = ROWS) -> bytes:
    return "\n".join(json.dumps(row) for row in rows).encode()


def here(program: Program, what: str) -> str:
    return f"/api/v1/projects/{program.token.project.slug}/{what}"


def send(program: Program, body: Any, query: str = "", key: str = "", **extra: Any) -> Any:
    """Send a file as a program does: as the body, or as a part of a form."""
    headers = program.headers | ({"Idempotency-Key": key} if key else {})
    if not isinstance(body, dict):
        extra.setdefault("content_type", "application/x-www-form-urlencoded")  # curl --data-binary
    client = Client(enforce_csrf_checks=True)
    return client.post(here(program, f"imports{query}"), body, headers=headers, **extra)


def worked(program: Program, answer: Any) -> dict[str, Any]:
    """Run the import as a worker does and return it."""
    assert answer.status_code == 200, answer.content
    import_file(answer.json()["id"])
    found: dict[str, Any] = program.get(here(program, f"imports/{answer.json()['id']}")).json()
    return found


def exported(program: Program, query: str = "") -> bytes:
    answer = program.get(here(program, f"export{query}"))
    assert answer.status_code == 200
    return b"".join(answer.streaming_content)


def exported_rows(program: Program, query: str = "") -> list[dict[str, Any]]:
    return [json.loads(line) for line in exported(program, query).splitlines()]


def uploads(artifacts: Path) -> list[Path]:
    return list((artifacts / "imports").glob("*"))


# -- import and export


def test_file_is_imported_and_exported_in_every_format(
    project: Project, outsider: User, program: Program, artifacts: Path, settings: Settings
) -> None:
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 10  # reading the body into memory fails
    started = send(program, jsonl(), "?name=votes.jsonl")
    assert (started.json()["status"], len(uploads(artifacts))) == ("queued", 1)

    done = worked(program, started)

    counts = {key: done[key] for key in ("rows", "imported", "duplicates", "refused", "share")}
    assert counts == {"rows": 3, "imported": 3, "duplicates": 0, "refused": 1, "share": 1.0}
    assert (done["status"], done["name"]) == ("done", "votes.jsonl")
    [refused] = program.get(here(program, f"imports/{done['id']}/refused")).json()["data"]
    assert (refused["row"], json.loads(refused["content"])) == (3, ROWS[2])
    assert "neither true nor false" in refused["reason"]
    assert uploads(artifacts) == []
    assert {vote.user for vote in Vote.objects.all()} == {program.token.user}
    rows = exported_rows(program)
    assert [(row["completion"][0]["content"], row["label"]) for row in rows] == [
        ("=1+1", True),
        ("good", True),
        ("bad", False),
    ]
    plain = tuple(name for name in export_rows.COLUMNS if name != "tools")
    assert {tuple(row) for row in rows} == {plain}, "TRL's format, without extra columns"

    # another project imports the export unchanged, in each format
    other = Project.objects.get(slug="other")
    # the same prompts are in the same splits
    Project.objects.filter(pk=other.pk).update(split_key=project.split_key)
    scopes = [Scope.DATA_READ, Scope.DATA_WRITE]
    taker = Program(*token_create(project=other, name="In", scopes=scopes, by=outsider))
    for query in ("?format=parquet&votes=true", "?format=csv&votes=true", "?votes=true"):
        file = SimpleUploadedFile("x", exported(program, query))
        back = worked(taker, send(taker, {"file": file}))
        assert (back["imported"], back["refused"], back["name"]) == (3, 0, "x")
        assert exported_rows(taker) == rows
        other.completions.all().delete()


@pytest.mark.slow
def test_export_is_audited_and_has_pseudonyms_and_snapshots(
    voted_project: Project, admin: User, annotator: User, program: Program
) -> None:
    run = run_request(project=voted_project, by=admin)
    before = exported(program)
    Example.objects.update(desirable=True)

    then = exported(program, f"?snapshot={run.number}")
    now = exported_rows(program, "?votes=true&format=jsonl")

    assert then == before
    assert all(row["label"] for row in now)
    assert {vote["voter"] for row in now for vote in row["votes"]} == {
        export_rows.voter_name(voted_project.pk, annotator.pk)
    }
    assert annotator.email not in json.dumps(now)
    events = AuditEvent.objects.filter(action="examples.export").order_by("pk")
    assert [(event.target, event.reason) for event in events] == [
        ("jsonl", ""),
        ("jsonl", f"run-{run.number}"),
        ("jsonl, with votes", ""),
    ]
    assert {event.actor for event in events} == {program.token.user}


def test_snapshot_that_a_worker_still_takes_is_no_empty_export(
    voted_project: Project, admin: User, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("feedback_app.training.snapshots.services.AT_ONCE", 5)
    run_request(project=voted_project, by=admin)
    answer = program.get(here(program, "export?snapshot=1"))
    assert fault(answer)[:2] == (409, "wrong_moment")


def test_export_stops_when_its_token_is_revoked(
    voted_project: Project, admin: User, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("feedback_app.api.data.files.CHUNK", 20)
    lines = program.get(here(program, "export")).streaming_content
    next(lines)
    token_revoke(token=program.token, by=admin)

    with pytest.raises(ApiError):
        list(lines)


# -- how a file is parsed


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_columns_are_mapped_and_a_dry_run_stores_nothing(
    kind: str, project: Project, admin: User, program: Program, artifacts: Path
) -> None:
    hook, _ = webhook_create(
        project=project, url="https://93.184.215.14/", events=[Event.IMPORT_FINISHED], by=admin
    )
    rows = [{"Frage": "Q", "completion": "no", "Antwort": "A", "label": "up"}]
    body = {
        # the second row has no answer: its column `completion` is not the mapped one
        "jsonl": lambda: jsonl([*rows, {"Frage": "R", "completion": "no", "label": "up"}]),
        "csv": lambda: b"Frage,completion,Antwort,label\nQ,no,A,up\n",
        "parquet": lambda: parquet(rows),
    }[kind]()
    query = "?map=prompt:Frage&map=completion:Antwort"

    tried = worked(program, send(program, body, f"{query}&dry_run=true"))
    assert (tried["imported"], tried["dry_run"], tried["status"]) == (1, True, "done")
    assert not (project.prompts.exists() or Vote.objects.exists() or uploads(artifacts))
    assert not hook.deliveries.exists(), "a dry run sends no event"

    done = worked(program, send(program, body, query))
    assert hook.deliveries.count() == 1
    assert done["columns"] == {"prompt": "Frage", "completion": "Antwort"}
    example = Example.objects.get()
    assert (example.completion.text, example.completion.prompt.title) == ("A", "Q")


def test_labels_are_mapped_and_gold_is_refused_from_programs(
    project: Project, program: Program, artifacts: Path
) -> None:
    rows = [
        {"prompt": "Q1", "completion": "A", "label": 1, "gold": ""},
        {"prompt": "Q2", "completion": "A", "label": "fine", "gold": "the answer to compare"},
        {"prompt": "Q3", "completion": "A", "gold": "up"},
    ]

    mapped = worked(program, send(program, jsonl(rows[:2]), "?map=gold:&up=fine&down=1"))
    marked = worked(program, send(program, jsonl(rows[2:])))

    assert (mapped["imported"], mapped["labels_up"], mapped["labels_down"]) == (2, ["fine"], ["1"])
    assert list(Vote.objects.order_by("pk").values_list("verdict", flat=True)) == ["down", "up"]
    assert (marked["refused"], marked["gold"]) == (1, 0)
    refused = program.get(here(program, f"imports/{marked['id']}/refused")).json()["data"]
    assert "only admins" in refused[0]["reason"]


def parquet(rows: list[Any]) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), file)
    return file.getvalue()


@pytest.mark.parametrize(
    ("body", "query", "expected"),
    [
        (b"", "", (400, "invalid_value", None)),
        (b"[1]", "", (400, "invalid_value", None)),
        (b"a,b\n1,2\n", "?map=prompt:c", (400, "invalid_value", None)),
        (jsonl(), "?map=weight:w", (400, "invalid_value", "map")),
        (jsonl(), "?map=prompt:a&map=prompt:b", (400, "invalid_value", "map")),
        (jsonl(), "?map=prompt", (400, "invalid_value", "map")),
        (jsonl(), "?up=x&down=X", (400, "invalid_value", None)),
        (jsonl(), "?dry_run=perhaps", (400, "invalid_value", "dry_run")),
        (jsonl(), "?by=1", (400, "unknown_parameter", "by")),
        ({}, "", (400, "missing_required_parameter", "file")),
        ({"file": "text"}, "", (400, "missing_required_parameter", "file")),
        (
            {"file": SimpleUploadedFile("x", jsonl()), "by": "1"},
            "",
            (400, "unknown_parameter", "by"),
        ),
    ],
)
def test_useless_file_is_refused_and_deleted(
    body: Any, query: str, expected: Any, program: Program, artifacts: Path
) -> None:
    assert fault(send(program, body, query)) == expected

    assert not ImportJob.objects.exists()
    assert uploads(artifacts) == []


def test_malformed_form_and_too_large_file_are_refused(
    program: Program, artifacts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("feedback_app.feedback.imports.uploads.UPLOAD_LIMIT", 10)

    torn = send(program, b"x", content_type="multipart/form-data")
    assert fault(torn) == (400, "invalid_form", None)
    assert fault(send(program, jsonl())) == (413, "body_too_large", None)
    announced = send(program, b"{}", CONTENT_LENGTH="200000")
    assert fault(announced) == (413, "body_too_large", None), "refused before reading the body"
    assert uploads(artifacts) == []


# -- idempotency, concurrency and access


def test_import_runs_once_per_key_one_at_a_time_and_can_be_stopped(
    program: Program, artifacts: Path
) -> None:
    first = send(program, jsonl(), key="night")
    again = send(program, jsonl(), key="night")
    other = send(program, jsonl(ROWS[:1]), key="night")
    second = send(program, jsonl(ROWS[:1]))

    assert (again.content, again["Idempotent-Replayed"]) == (first.content, "true")
    assert fault(other)[:2] == (409, "idempotency_key_reused")
    assert fault(send(program, jsonl(), "?dry_run=true", key="night"))[0] == 409
    assert fault(second) == (409, "wrong_moment", None)
    job = ImportJob.objects.get()
    assert [str(path) for path in uploads(artifacts)] == [job.path]
    address = here(program, f"imports/{job.pk}/stop")
    assert program.post(address, {}).json()["status"] == "cancelled"
    assert fault(program.post(address, {})) == (409, "wrong_moment", None)
    assert uploads(artifacts) == []
    assert worked(program, first)["imported"] == 0


def test_access_depends_on_scopes_and_projects(
    project: Project, admin: User, outsider: User, program: Program
) -> None:
    pk = send(program, jsonl()).json()["id"]
    other = Project.objects.get(slug="other")
    theirs = Program(*token_create(project=other, name="O", scopes=list(Scope), by=outsider))
    reader = Program(*token_create(project=project, name="R", scopes=[Scope.DATA_READ], by=admin))
    writer = Program(*token_create(project=project, name="W", scopes=[Scope.DATA_WRITE], by=admin))
    reading = [f"imports/{pk}", f"imports/{pk}/refused", "imports", "export"]

    for what in reading:
        assert fault(writer.get(here(writer, what)))[:2] == (403, "insufficient_scope")
        assert fault(theirs.get(here(program, what)))[:2] == (404, "not_found")
        assert Client().get(here(program, what)).status_code == 401
        assert fault(reader.get(here(reader, f"{what}?user=1")))[0] in (400, 404)
        if "/" in what:
            assert fault(theirs.get(here(theirs, what)))[:2] == (404, "not_found")
    assert fault(reader.get(here(reader, "export?snapshot=7"))) == (404, "not_found", "snapshot")
    assert fault(reader.get(here(reader, "export?format=pickle"))) == (
        400,
        "invalid_value",
        "format",
    )
    assert fault(send(reader, jsonl()))[0] == 403
    assert fault(reader.post(here(reader, f"imports/{pk}/stop"), {}))[0] == 403
    assert fault(theirs.post(here(theirs, f"imports/{pk}/stop"), {}))[0] == 404
    assert ImportJob.objects.get().status == "queued"
