"""Exports: TRL's unpaired format, loaded and prepared by TRL itself, and injection-safe CSV."""

import csv
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from feedback_app.accounts.models import AuditEvent, User
from feedback_app.feedback.exports import parquet
from feedback_app.feedback.exports import rows as export_rows
from feedback_app.feedback.exports.rows import as_written, csv_lines, neutralised, project_rows
from feedback_app.feedback.models import Completion, Pause, Project, Source, Verdict
from feedback_app.feedback.votes.services import vote_cast
from feedback_app.training.runs.services import run_request

pytestmark = [pytest.mark.django_db, pytest.mark.slow]

As = Callable[[User], Client]
Make = Callable[..., list[Completion]]

HOSTILE = ["=cmd|' /C calc'!A0", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", " =1", "\xa0=1"]


def export(project: Project, path: Path, **options: object) -> Path:
    call_command(
        "export_examples", project=project.slug, format=path.suffix[1:], out=path, **options
    )
    return path


def url(project: Project, chosen: str) -> str:
    return reverse("examples-export", args=[project.slug]) + f"?format={chosen}"


def content(response: Any) -> bytes:
    parts: Iterator[bytes] = response.streaming_content
    return b"".join(parts)


def test_jsonl_has_every_example_with_its_context(voted_project: Project, tmp_path: Path) -> None:
    rows = [
        json.loads(line)
        for line in export(voted_project, tmp_path / "all.jsonl").read_text().splitlines()
    ]

    assert len(rows) == 60
    assert sum(row["label"] for row in rows) == 20
    assert rows[0] == {
        "prompt": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Question number 0?"},
        ],
        "completion": [{"role": "assistant", "content": "Answer number 0."}],
        "label": True,
        "weight": 1.0,
        "split": rows[0]["split"],
    }
    assert {row["split"] for row in rows} == {"train", "validation", "test"}


@pytest.mark.slow
def test_every_example_is_exported_once_across_chunks_and_row_groups(
    voted_project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_rows, "CHUNK", 7)
    monkeypatch.setattr(parquet, "GROUP_ROWS", 8)

    file = pq.ParquetFile(export(voted_project, tmp_path / "all.parquet"))

    texts = [row["completion"][0]["content"] for row in file.read().to_pylist()]
    assert texts == [f"Answer number {number}." for number in range(60)]
    assert file.num_row_groups == 8


def test_parquet_row_group_ends_when_its_text_is_long(
    voted_project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "GROUP_CHARACTERS", 100)

    file = pq.ParquetFile(export(voted_project, tmp_path / "all.parquet"))

    assert file.num_row_groups == 20


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_trl_prepares_the_export_unchanged(
    suffix: str, voted_project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("trl")
    from datasets import load_dataset
    from peft import LoraConfig
    from trl import KTOConfig, KTOTrainer

    from tests.tiny import make_tiny_model
    from trainer.models.loading import load_base

    path = export(voted_project, tmp_path / f"all.{suffix}")
    kind = "json" if suffix == "jsonl" else suffix
    data = load_dataset(kind, data_files=str(path), split="train", cache_dir=str(tmp_path / "hub"))
    base = load_base(str(make_tiny_model(tmp_path / "tiny")), dtype="float32", device="cpu")
    trainer = KTOTrainer(
        model=base.model,
        processing_class=base.tokenizer,
        train_dataset=data,
        peft_config=LoraConfig(r=4, target_modules="all-linear"),
        args=KTOConfig(
            output_dir=str(tmp_path / "out"),
            per_device_train_batch_size=4,
            report_to=[],
            use_cpu=True,
            bf16=False,
            disable_tqdm=True,
        ),
    )

    assert data.num_rows == len(trainer.train_dataset) == 60
    assert sum(data["label"]) == 20
    first = trainer.train_dataset[0]
    read = base.tokenizer.decode([*first["prompt_ids"], *first["completion_ids"]])
    assert "Be brief." in read
    assert "Question number 0?" in read
    assert "Answer number 0." in read


def test_snapshot_export_equals_the_input_of_the_run(
    voted_project: Project, admin: User, annotator: User, tmp_path: Path
) -> None:
    run = run_request(project=voted_project, by=admin)
    first = voted_project.completions.order_by("pk")[0]
    vote_cast(completion=first, verdict=Verdict.DOWN, by=annotator, source=Source.ANNOTATE)

    now = export(voted_project, tmp_path / "now.jsonl").read_text().splitlines()
    then = export(voted_project, tmp_path / "then.jsonl", snapshot=run.number)

    assert json.loads(now[0])["label"] is False
    assert json.loads(then.read_text().splitlines()[0])["label"] is True


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"project": "nothing"}, "no project nothing"),
        ({"snapshot": 9}, "no run 9"),
        ({"out": Path("/proc/nowhere/x")}, "could not be written"),
    ],
)
def test_command_reports_wrong_options(options: dict[str, Any], why: str, project: Project) -> None:
    with pytest.raises(CommandError, match=why):
        call_command("export_examples", **{"project": "bot", "format": "csv", **options})


# -- CSV


def test_csv_neutralises_formulas_and_keeps_line_breaks(
    project: Project, annotator: User, make_completions: Make
) -> None:
    texts = [*HOSTILE, "'=1", "'quoted'", 'two\nlines, "and" more\r\n;end', "plain"]
    for completion, text in zip(make_completions(len(texts)), texts, strict=True):
        Completion.objects.filter(pk=completion.pk).update(text=text)
        vote_cast(
            completion=Completion.objects.get(pk=completion.pk),
            verdict=Verdict.UP,
            by=annotator,
            source=Source.ANNOTATE,
        )

    body = b"".join(csv_lines(project_rows(project))).decode()
    header, *rows = csv.reader(io.StringIO(body, newline=""))

    assert header == ["prompt", "completion", "label", "weight", "split", "tools"]
    cells = [row[1] for row in rows]
    assert cells[: len(HOSTILE) + 1] == [f"'{text}" for text in [*HOSTILE, "'=1"]]
    assert cells[-3:] == texts[-3:]
    assert [as_written(cell) for cell in cells] == texts
    assert json.loads(rows[0][0])[0] == {"role": "system", "content": "Be brief."}


@pytest.mark.parametrize("text", [*HOSTILE, "＝1", " \xa0 @x", "''=1", "'", "a=1", "", "don't"])
def test_neutralised_cell_can_be_restored(text: str) -> None:
    assert as_written(neutralised(text)) == text


# -- downloads from the page


@pytest.mark.parametrize(
    ("chosen", "start"), [("jsonl", b'{"prompt"'), ("csv", b'"prompt"'), ("parquet", b"PAR1")]
)
def test_download_is_an_attachment_and_is_audited(
    chosen: str, start: bytes, voted_project: Project, admin: User, as_user: As
) -> None:
    answer = as_user(admin).get(url(voted_project, chosen))

    assert answer.status_code == 200
    assert f'filename="bot-examples.{chosen}"' in answer["Content-Disposition"]
    assert "attachment" in answer["Content-Disposition"]
    assert content(answer).startswith(start)
    event = AuditEvent.objects.get(action="examples.export")
    assert (event.actor, event.target) == (admin, chosen)


def test_download_is_for_admins(
    voted_project: Project, annotator: User, outsider: User, client: Client, as_user: As
) -> None:
    address = url(voted_project, "jsonl")

    assert as_user(outsider).get(address).status_code == 404
    assert as_user(annotator).get(address).status_code == 403
    assert client.get(address).status_code == 302


@pytest.mark.parametrize("query", ["?format=pickle", "?format=csv&user=1"])
def test_download_unknown_format_is_refused(
    query: str, project: Project, admin: User, as_user: As
) -> None:
    address = reverse("examples-export", args=[project.slug]) + query
    assert as_user(admin).get(address).status_code == 400


def test_download_queries_do_not_grow_with_the_rows(
    voted_project: Project, admin: User, as_user: As, django_assert_max_num_queries: Any
) -> None:
    client = as_user(admin)
    with django_assert_max_num_queries(8):
        assert len(content(client.get(url(voted_project, "jsonl"))).splitlines()) == 60


@pytest.mark.slow
def test_examples_page_links_the_downloads(
    voted_project: Project, admin: User, as_user: As
) -> None:
    page = as_user(admin).get(reverse("examples", args=[voted_project.slug])).content.decode()

    assert f'action="{reverse("examples-export", args=[voted_project.slug])}"' in page
    assert 'name="votes" value="true"' in page
    for chosen in ("jsonl", "parquet", "csv"):
        assert f'name="format" value="{chosen}"' in page


# -- with votes


@pytest.mark.slow
def test_votes_are_exported_under_pseudonyms_in_every_format(
    voted_project: Project, admin: User, annotator: User, outsider: User, as_user: As
) -> None:
    first, second = voted_project.completions.order_by("pk")[:2]
    said = {"reasons": ["clear"], "comment": "=1+1"}
    vote_cast(completion=first, verdict=Verdict.UP, by=admin, source=Source.IMPORT, **said)
    pause = Pause.objects.create(project=voted_project, user=annotator, right=0, of=1)
    second.votes.update(set_aside=pause)
    client = as_user(admin)

    plain = content(client.get(url(voted_project, "jsonl")))
    with_votes = url(voted_project, "{}") + "&votes=true"
    lines = content(client.get(with_votes.format("jsonl"))).splitlines()
    table = pq.read_table(io.BytesIO(content(client.get(with_votes.format("parquet")))))
    written = content(client.get(with_votes.format("csv"))).decode()

    rows = [json.loads(line) for line in lines]
    votes = [row.pop("votes") for row in rows]
    assert rows == [json.loads(line) for line in plain.splitlines()]
    assert all(set(row) == {*export_rows.COLUMNS} - {"tools"} for row in rows)
    mine, theirs = votes[0][1]["voter"], votes[0][0]["voter"]
    assert votes[0][1] | {"at": ""} == {
        "verdict": "up",
        "source": "import",
        "at": "",
        "voter": mine,
        **said,
    }
    assert votes[1] == [], "a vote set aside is not exported"
    assert {vote["voter"] for each in votes[2:] for vote in each} == {theirs} != {mine}
    assert mine == export_rows.voter_name(voted_project.pk, admin.pk)
    elsewhere = Project.objects.get(slug="other")
    assert mine != export_rows.voter_name(elsewhere.pk, admin.pk), (
        "pseudonyms differ between projects"
    )
    for person in (admin, annotator):
        for personal in (person.email, person.name):
            assert personal not in b"\n".join(lines).decode() + written
    assert table.column("votes").to_pylist() == votes
    records = list(csv.DictReader(io.StringIO(written, newline="")))
    assert [json.loads(record["votes"]) for record in records] == votes
    assert all(as_written(cell) == cell for record in records for cell in record.values())
    assert AuditEvent.objects.filter(target="csv, with votes").exists()


@pytest.mark.slow
def test_votes_take_one_query_per_chunk(
    voted_project: Project, django_assert_num_queries: Any
) -> None:
    with django_assert_num_queries(4):  # keys, their rows, their votes, no more keys
        assert sum(len(row.votes or []) for row in project_rows(voted_project, votes=True)) == 60


def test_chunk_is_joined_by_its_keys(voted_project: Project, monkeypatch: Any) -> None:
    """Of "key > …" alone PostgreSQL made a join that began at the first completion each time."""
    monkeypatch.setattr(export_rows, "CHUNK", 20)
    with CaptureQueriesContext(connection) as queries:
        assert len(list(project_rows(voted_project))) == 60
    joined = [query["sql"] for query in queries if "JOIN" in query["sql"]]
    assert len(joined) == 3
    assert all(" IN (" in sql and " > " not in sql for sql in joined), joined
