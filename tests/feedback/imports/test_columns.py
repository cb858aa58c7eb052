"""Files with their own names for columns and labels: mapped on the page or on the command line,
with an error when nothing matches."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse

from feedback_app.accounts.models import User
from feedback_app.feedback.imports.services import import_take_here
from feedback_app.feedback.models import Completion, Example, ImportJob, Project, Prompt
from feedback_app.feedback.tasks import import_file

pytestmark = pytest.mark.django_db

As = Callable[[User], Client]

CSV = "id,Frage,Antwort,Note,label\n1,Q1,A1,gut,x\n2,Q2,A2,naja,y\n3,Q3,A3,gut,z\n"
COLUMNS = {"prompt": "frage", "completion": "antwort", "label": "note"}
LABELS = {"up": "gut", "down": "Naja"}
#: The form as a browser sends it: every field, mapped or not.
FORM = dict.fromkeys(["chosen", "rejected", "messages", "topic", "gold"], "") | COLUMNS | LABELS


def uploaded(client: Client, content: bytes, name: str = "votes.csv") -> ImportJob:
    client.post(reverse("imports", args=["bot"]), {"file": SimpleUploadedFile(name, content)})
    return ImportJob.objects.latest("pk")


def at(job: ImportJob, name: str = "import-job") -> str:
    return reverse(name, args=["bot", job.pk])


def shown(client: Client, job: ImportJob) -> str:
    return client.get(at(job)).content.decode()


def labels() -> list[tuple[str, bool]]:
    return list(Example.objects.order_by("pk").values_list("completion__text", "desirable"))


def parquet() -> bytes:
    table = pa.Table.from_pylist(
        [{"frage": f"Q{n}", "antwort": f"A{n}", "note": n % 2 * 2.0, "label": 1} for n in (1, 2)]
    )
    file = io.BytesIO()
    pq.write_table(table, file)
    return file.getvalue()


def test_columns_are_shown_mapped_and_imported(project: Project, admin: User, as_user: As) -> None:
    client = as_user(admin)
    job = uploaded(client, CSV.encode())
    before = shown(client, job)

    chosen = client.post(at(job, "import-columns"), FORM, headers={"HX-Request": "true"})
    after = chosen.content.decode()
    reloaded = shown(client, job)
    client.post(at(job, "import-start"), FORM)
    import_file(job.pk)

    assert "Choose the column for completion" in before
    assert all(name in before for name in ("frage", "antwort", "note", "A1", "naja"))
    assert "<html" not in after
    assert '<span class="mono">naja</span> × 1' in after
    assert after.count("Examples with labels") == 3
    assert '<option value="frage" selected>' in reloaded
    assert labels() == [("A1", True), ("A2", False), ("A3", True)]
    assert ImportJob.objects.get().refused == 0


@pytest.mark.slow
def test_labels_given_for_a_file_override_the_known_spellings(
    project: Project, admin: User, as_user: As
) -> None:
    client = as_user(admin)
    job = uploaded(client, parquet(), "votes.parquet")

    client.post(at(job, "import-start"), FORM | {"up": "0", "down": "2"})
    import_file(job.pk)

    assert labels() == [("A1", False), ("A2", True)]


def test_incomplete_mapping_names_the_missing_column_and_starts_nothing(
    project: Project, admin: User, as_user: As
) -> None:
    client = as_user(admin)
    job = uploaded(client, CSV.encode())

    refused = client.post(at(job, "import-start"), FORM | {"label": ""}, follow=True)
    pair = client.post(at(job, "import-columns"), FORM | {"chosen": "id"}, follow=True)

    assert b"The answers have no label" in refused.content
    assert b"Choose the column for rejected" in pair.content
    assert ImportJob.objects.get().status == "preview"
    for wrong in (
        {"prompt": "nothing"},  # not in the file
        {"up": "gut, naja"},  # naja is mapped to down as well
        {"weight": "id"},  # not one of our fields
    ):
        for action in ("import-columns", "import-start"):
            assert client.post(at(job, action), FORM | wrong).status_code == 400
    assert ImportJob.objects.get().status == "preview"
    assert not Prompt.objects.exists()


def test_common_names_are_recognised_unless_ours_are_present(
    project: Project, admin: User, as_user: As
) -> None:
    client = as_user(admin)
    guessed = uploaded(client, b"question,answer,score\nQ,A,good\n")
    ours = uploaded(client, b"prompt,completion,label,question,score\nQ,A,good,no,bad\n")
    prompts = uploaded(client, b"prompt,reply\nQ,A\n")

    assert guessed.columns == {"prompt": "question", "completion": "answer", "label": "score"}
    assert ours.columns == {}
    assert prompts.columns == {}  # prompts alone are a valid import


def test_column_missing_from_early_rows_is_used(project: Project, admin: User, as_user: As) -> None:
    rows = [{"prompt": f"Q{n}"} for n in range(1_001)]
    rows.append({"prompt": "Last", "completion": "A", "label": True})
    client = as_user(admin)
    job = uploaded(client, "\n".join(map(json.dumps, rows)).encode(), "votes.jsonl")
    form = dict.fromkeys(FORM, "") | {"prompt": "prompt"}

    client.post(at(job, "import-start"), form)
    import_file(job.pk)

    assert labels() == [("A", True)]


def test_unmapped_column_is_not_used(project: Project, admin: User, as_user: As) -> None:
    client = as_user(admin)
    # the first column is the index written by pandas
    job = uploaded(client, b",prompt,output,label\n1,Q1,A1,yes\n2,Q2,A2,no\n")
    assert "Examples with labels" in shown(client, job)

    client.post(at(job, "import-start"), dict.fromkeys(FORM, "") | {"prompt": "prompt"})
    import_file(job.pk)

    job.refresh_from_db()
    assert (job.prompts, job.refused, Completion.objects.count()) == (2, 0, 0)


def test_started_import_resumes_only_with_the_same_columns(
    project: Project, admin: User, tmp_path: Path
) -> None:
    path = tmp_path / "a.csv"
    path.write_text(CSV)
    import_take_here(project=project, path=path, by=admin, columns=COLUMNS)
    mapped = [f"{ours}={theirs}" for ours, theirs in COLUMNS.items()]

    for other in ({}, {"map": mapped, "up": ["gut"]}):
        with pytest.raises(CommandError, match="started with other columns or labels"):
            call_command("import_examples", path, project="bot", **other)
    call_command("import_examples", path, project="bot", map=mapped)

    assert ImportJob.objects.get().status == "done"


@pytest.mark.slow
def test_wide_and_damaged_files_can_be_previewed(
    project: Project, admin: User, as_user: As
) -> None:
    client = as_user(admin)
    names = [f"c{n}" for n in range(90)]
    wide = uploaded(client, (",".join([*names, "question"]) + "\n" + "x," * 90 + "Q\n").encode())
    table = pa.table({"question": [f"Q{n} " + "q" * 50 for n in range(4_000)]})
    file = io.BytesIO()
    pq.write_table(table, file, row_group_size=500, compression="none", use_dictionary=False)
    body = bytearray(file.getvalue())
    second = pq.ParquetFile(file).metadata.row_group(1).column(0).data_page_offset
    body[second : second + 40] = b"\xff" * 40
    damaged = uploaded(client, bytes(body), "a.parquet")

    assert wide.columns == {"prompt": "question"}
    shows = shown(client, wide)
    assert "And 40 more in the form." in shows
    assert '<option value="c89">' in shows
    assert shows.count('<th scope="row" class="mono">') == 51
    assert "Prompts only" in shown(client, damaged)
    client.post(at(damaged, "import-start"))
    import_file(damaged.pk)
    assert "damaged after row 448" in ImportJob.objects.get(pk=damaged.pk).error


def test_columns_are_mapped_by_admins_until_the_start(
    project: Project, admin: User, annotator: User, outsider: User, as_user: As
) -> None:
    client = as_user(admin)
    job = uploaded(client, CSV.encode())

    assert as_user(annotator).post(at(job, "import-columns"), FORM).status_code == 403
    assert as_user(outsider).post(at(job, "import-columns"), FORM).status_code == 404
    assert as_user(admin).get(at(job, "import-columns")).status_code == 405
    assert ImportJob.objects.get().columns == {}
    client.post(at(job, "import-start"), FORM)
    late = client.post(at(job, "import-columns"), FORM | {"label": ""})

    assert late.status_code == 400
    assert ImportJob.objects.get().columns == COLUMNS


@pytest.mark.parametrize("dry_run", [True, False])
def test_command_takes_columns_and_labels(
    project: Project, tmp_path: Path, capsys: Any, *, dry_run: bool
) -> None:
    path = tmp_path / "a.csv"
    path.write_text(CSV)
    mapped = [f"{ours}={theirs}" for ours, theirs in COLUMNS.items()]

    call_command(
        "import_examples",
        path,
        project="bot",
        map=mapped,
        up=["gut"],
        down=["naja"],
        dry_run=dry_run,
    )

    assert "3 rows: 3 examples, 0 prompts" in capsys.readouterr().out
    assert Completion.objects.count() == (0 if dry_run else 3)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"map": ["prompt"]}, "FIELD=COLUMN"),
        ({"map": ["weight=note"]}, "FIELD is one of"),
        ({"map": ["prompt=a", "prompt=b"]}, "each at most once"),
        ({"map": ["prompt=nothing"]}, "No column is called nothing"),
        ({"map": ["label="]}, "No column is called prompt"),
        ({"up": ["x"], "down": ["X"]}, "both up and down: x"),
    ],
)
def test_command_reports_wrong_columns(
    project: Project, tmp_path: Path, given: dict[str, Any], message: str
) -> None:
    path = tmp_path / "a.csv"
    path.write_text(CSV)

    for dry_run in (True, False):
        with pytest.raises(CommandError, match=message):
            call_command("import_examples", path, project="bot", dry_run=dry_run, **given)
    assert not Prompt.objects.exists()
