"""Imports, row by row: each row becomes an example or a refusal, once across retries."""

import csv
import io
import json
import tracemalloc
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from django.apps import apps
from django.core.management import CommandError, call_command
from django.utils import timezone

from feedback_app.accounts.models import User
from feedback_app.feedback.imports import chunks, services
from feedback_app.feedback.imports.opening import open_rows
from feedback_app.feedback.imports.services import (
    chunk_commit,
    import_claim,
    import_execute,
    import_take_here,
)
from feedback_app.feedback.models import (
    Completion,
    Example,
    ImportJob,
    ImportRefusal,
    Project,
    Prompt,
    Vote,
    VoteEvent,
)
from feedback_app.feedback.votes.services import vote_cast, vote_undo
from feedback_app.web.errors import UserError
from tests.conftest import MakeCompletions

pytestmark = pytest.mark.django_db

USER = {"role": "user", "content": "Hi?"}
HELLO = {"role": "assistant", "content": "Hello."}
BYE = {"role": "assistant", "content": "Go away."}


def row(number: int, **changes: Any) -> dict[str, Any]:
    return {"prompt": f"Q{number}", "completion": f"A{number}", "label": True, **changes}


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def load(path: Path, **options: Any) -> ImportJob:
    call_command("import_examples", path, project="bot", **options)
    return ImportJob.objects.latest("pk")


def counts(job: ImportJob) -> tuple[int, int, int, int, int]:
    return job.rows, job.imported, job.prompts, job.duplicates, job.refused


def reasons(job: ImportJob) -> list[tuple[int, str]]:
    return list(job.refusals.order_by("pk").values_list("number", "reason"))


def test_unpaired_rows_become_votes_and_examples(
    project: Project, admin: User, tmp_path: Path
) -> None:
    job = load(
        write(
            tmp_path / "a.jsonl",
            [
                row(1),
                {
                    "prompt": [{"role": "system", "content": "Be kind."}, USER],
                    "completion": [BYE],
                    "label": False,
                },
            ],
        )
    )

    assert job.status == "done"
    assert counts(job) == (2, 2, 0, 0, 0)
    first, second = Completion.objects.order_by("pk")
    assert first.prompt.messages == [{"role": "user", "content": "Q1"}]
    assert (first.text, first.system_prompt, first.vote_count) == ("A1", "", 1)
    assert second.prompt.messages == [USER]
    assert (second.text, second.system_prompt) == ("Go away.", "Be kind.")
    assert [(v.user, v.verdict, v.source) for v in Vote.objects.order_by("pk")] == [
        (admin, "up", "import"),
        (admin, "down", "import"),
    ]
    assert VoteEvent.objects.filter(source="import").count() == 2
    assert list(Example.objects.order_by("pk").values_list("desirable", "weight", "split")) == [
        (True, 1.0, first.prompt.split),
        (False, 1.0, second.prompt.split),
    ]


def test_imported_example_follows_later_votes(
    project: Project, admin: User, annotator: User, tmp_path: Path
) -> None:
    load(write(tmp_path / "a.jsonl", [row(1)]))
    completion = Completion.objects.get()

    vote_cast(completion=completion, verdict="down", by=annotator, source="annotate")
    assert not Example.objects.exists()
    vote_undo(completion=completion, by=admin, source="annotate")
    assert Example.objects.get().desirable is False


@pytest.mark.parametrize(
    "shape",
    [
        {"prompt": "Hi?", "chosen": "Hello.", "rejected": "Go away."},
        {"prompt": [USER], "chosen": [HELLO], "rejected": [BYE]},
        {"chosen": [USER, HELLO], "rejected": [USER, BYE]},
        {"prompt": "Hi?", "chosen": [USER, HELLO], "rejected": [USER, BYE]},
        {
            "chosen": "\n\nHuman: Hi?\n\nAssistant: Hello.",
            "rejected": "\n\nHuman: Hi?\n\nAssistant: Go away.",
        },
    ],
)
def test_pair_becomes_an_up_and_a_down(
    shape: dict[str, Any], project: Project, tmp_path: Path
) -> None:
    job = load(write(tmp_path / "a.jsonl", [shape]))

    assert counts(job) == (1, 2, 0, 0, 0)
    assert Prompt.objects.get().messages == [USER]
    assert {(e.completion.text, e.desirable) for e in Example.objects.all()} == {
        ("Hello.", True),
        ("Go away.", False),
    }


def test_hh_text_of_several_turns_is_split_at_the_common_prefix(
    project: Project, tmp_path: Path
) -> None:
    start = "\n\nHuman: One\n\nAssistant: Two\n\nHuman: Three\n\nAssistant: "
    write(tmp_path / "a.jsonl", [{"chosen": start + "Four A", "rejected": start + "Four B"}])

    load(tmp_path / "a.jsonl")

    assert [m["content"] for m in Prompt.objects.get().messages] == ["One", "Two", "Three"]
    assert set(Completion.objects.values_list("text", flat=True)) == {"Four A", "Four B"}


def test_halos_rows_and_labelled_messages(project: Project, tmp_path: Path) -> None:
    halos = {"prompt": [USER], "output": [HELLO], "label": 1, "type": "binary_feedback"}
    labelled = {"messages": [USER, BYE], "label": "no"}

    job = load(write(tmp_path / "a.jsonl", [halos, labelled]))

    assert counts(job) == (2, 2, 0, 0, 0)
    assert set(Example.objects.values_list("completion__text", "desirable")) == {
        ("Hello.", True),
        ("Go away.", False),
    }


def test_prompts_alone_have_no_answers_yet(project: Project, tmp_path: Path) -> None:
    rows = [{"prompt": "One?", "topic": "x"}, {"messages": [USER]}, {"prompt": "One?"}]

    job = load(write(tmp_path / "a.jsonl", rows))

    assert counts(job) == (3, 0, 2, 1, 0)
    assert set(Prompt.objects.values_list("topic", "source")) == {("x", "import"), ("", "import")}


def test_labels_in_all_spellings_are_parsed(project: Project, tmp_path: Path) -> None:
    ups = [True, 1, 1.0, "yes", "TRUE", "1", " Up "]
    downs = [False, 0, "no", "false", "0", "down", -1]
    bad = [None, "null", "maybe", "", 2, [], {}, float("nan")]
    rows = [row(n, label=label) for n, label in enumerate(ups + downs + bad)]

    job = load(write(tmp_path / "a.jsonl", rows))

    assert job.imported == 14
    assert Example.objects.filter(desirable=True).count() == 7
    assert [number for number, _ in reasons(job)] == list(range(15, 23))
    assert reasons(job)[0][1] == "the label is missing"
    assert all("label" in reason for _, reason in reasons(job))


# -- idempotency


def test_reimport_and_repeats_within_a_file_add_nothing(project: Project, tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [row(1), row(2), row(1)])

    assert counts(load(path)) == (3, 2, 0, 1, 0)
    assert counts(load(path)) == (3, 0, 0, 3, 0)
    assert Completion.objects.count() == Vote.objects.count() == Example.objects.count() == 2


def test_repeats_are_found_across_chunks(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "CHUNK_ROWS", 2)
    path = write(tmp_path / "a.jsonl", [row(n % 3) for n in range(9)])

    assert counts(load(path)) == (9, 3, 0, 6, 0)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_import_of_own_export_finds_duplicates(
    suffix: str, voted_project: Project, tmp_path: Path
) -> None:
    Completion.objects.filter(text="Answer number 4.").update(text="=4")
    path = tmp_path / f"a.{suffix}"
    call_command("export_examples", project="bot", format=suffix, out=path)

    job = load(path)

    # the row whose text changed after its hash was written is new
    assert counts(job) == (60, 1, 0, 59, 0)
    assert Completion.objects.latest("pk").text == "=4"


def test_migration_gives_existing_completions_the_same_hash(
    make_completions: MakeCompletions,
) -> None:
    migration = import_module("feedback_app.feedback.migrations.0004_fill_completion_hash")
    made = {completion.pk: completion.content_hash for completion in make_completions(3)}
    Completion.objects.update(content_hash="")

    migration.fill(apps, None)

    assert dict(Completion.objects.values_list("pk", "content_hash")) == made


def test_contradicting_label_is_refused(project: Project, tmp_path: Path) -> None:
    first = load(write(tmp_path / "a.jsonl", [row(1), row(1, label=False)]))
    second = load(write(tmp_path / "b.jsonl", [row(1, label=False)]))

    assert reasons(first) == [(2, chunks.LABELLED_OTHERWISE)]
    assert reasons(second) == [(1, chunks.LABELLED_OTHERWISE)]
    assert Example.objects.get().desirable is True


def test_label_for_a_sampled_answer_becomes_its_vote(
    project: Project, make_completions: MakeCompletions, tmp_path: Path
) -> None:
    [sampled] = make_completions(1)
    conversation = [{"role": "system", "content": "Be brief."}, *sampled.prompt.messages]
    path = write(
        tmp_path / "a.jsonl", [{"prompt": conversation, "completion": sampled.text, "label": 1}] * 2
    )

    assert counts(load(path)) == (2, 1, 0, 1, 0)
    assert Example.objects.get().completion == sampled


# -- hostile and broken files


def test_broken_rows_are_refused_with_a_reason_and_others_imported(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = json.dumps(row(1)).encode()
    long_chat = [USER, HELLO] * 5_000 + [USER]
    lines = [
        b"\xef\xbb\xbf" + good,
        b'{"prompt": "\xff\xfe"}',
        b"{broken",
        b"[" * 100_000,
        b"[1]",
        b"",
        json.dumps(row(2, completion="a\x00b")).encode(),
        b'{"prompt": "q", "completion": "\\ud800", "label": true}',
        json.dumps(row(3, prompt=long_chat)).encode(),
        json.dumps(row(4, completion="x" * 1_000_001)).encode(),
        json.dumps(row(5, completion="   ")).encode(),
        json.dumps(row(6, prompt=7)).encode(),
        json.dumps(row(7, prompt=[{"role": "tool", "content": "x"}])).encode(),
        json.dumps({"text": "x"}).encode(),
        json.dumps({"chosen": "a"}).encode(),
        json.dumps({"prompt": "q", "chosen": "a", "rejected": "a"}).encode(),
        json.dumps({"chosen": "a", "rejected": "b"}).encode(),
        b'{"label": ' + b"9" * 5_000 + b"}",
        json.dumps(row(8, pad="y" * 9_000_000)).encode(),
        json.dumps(row(9)).encode(),
    ]
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\r\n".join(lines))

    job = load(path)

    assert counts(job) == (19, 2, 0, 0, 17)
    reported = dict(reasons(job))
    expected = {
        2: "UTF-8 at byte 13",
        3: "not valid JSON",
        4: "nested too deeply",
        5: "not a JSON object",
        7: "NUL",
        8: "not valid UTF-8",
        9: "10,001 messages: at most 500",
        10: "1,000,001 characters",
        11: "answer is empty",
        12: "neither text nor a list",
        13: "without the call before it",
        14: "none of prompt",
        15: "both chosen and rejected",
        16: "are the same",
        17: "there is no prompt",
        18: "not valid JSON",
        19: "longer than 8 MB",
    }
    assert {n: text for n, text in expected.items() if text not in reported.get(n, "")} == {}
    assert Completion.objects.count() == 2


def test_csv_in_excels_dialects(project: Project, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    cell = json.dumps([USER]).replace('"', '""')
    path.write_bytes(
        b"\xef\xbb\xbfPrompt;Completion;LABEL;note\r\n"
        + f'"{cell}";"two\r\nlines; ""quoted""";yes;x\r\n'.encode()
        + b"Plain;'=1;0;\r\n\r\n"
        + b"too;few\r\n"
        + b"bad;\xff;1;\r\n"
        + b"nul;\x00;1;\r\n"
        + b"none;x;;\r\n"
    )

    job = load(path)

    assert counts(job) == (6, 2, 0, 0, 4)
    first, second = Completion.objects.order_by("pk")
    assert first.prompt.messages == [USER]
    assert first.text == 'two\r\nlines; "quoted"'
    assert (second.text, second.example.desirable) == ("=1", False)
    assert [reason for _, reason in reasons(job)] == [
        "2 cells where the header names 4 columns",
        "a text is not valid UTF-8",
        "a text has a NUL character, which cannot be stored",
        "the label is missing",
    ]


def test_csv_cell_without_end_is_refused_and_reading_continues(
    project: Project, tmp_path: Path
) -> None:
    path = tmp_path / "a.csv"
    huge = "x" * 5_000_000
    path.write_text(f'prompt,completion,label\nQ1,A1,1\nQ2,"{huge}",1\nQ3,A3,1\n')

    job = load(path)

    assert job.imported == 2
    assert "field larger than field limit" in reasons(job)[0][1]


@pytest.mark.slow
@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_parquet_with_other_columns_and_bad_bytes(
    kind: pa.DataType, project: Project, tmp_path: Path
) -> None:
    bad = pa.array([b"A1", b"\xff", b"A3"]).cast(pa.binary()).view(pa.string())
    table = pa.table(
        {
            "prompt": pa.array(["Q1", "Q2", "Q3"], kind),
            "completion": bad,
            "label": pa.array([True, False, None]),
            "extra": pa.array([b"\x00", b"\x01", None]),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=2)

    job = load(tmp_path / "a.parquet")

    assert counts(job) == (3, 1, 0, 0, 2)
    assert "not readable" in reasons(job)[0][1]
    assert reasons(job)[1] == (3, "the label is missing")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "empty"),
        (b"\xef\xbb\xbf  \n", "empty"),
        ('{"prompt": "x"}'.encode("utf-16"), "UTF-16"),
        (b"\x1f\x8b\x08", "compressed"),
        (b"PAR1 and then nothing", "not valid Parquet"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "not a CSV header"),
        (b"prompt,label,Prompt\n", "twice: prompt"),
    ],
)
def test_useless_file_fails_with_the_reason(
    content: bytes, why: str, project: Project, tmp_path: Path
) -> None:
    (tmp_path / "a").write_bytes(content)

    with pytest.raises(CommandError, match=why):
        load(tmp_path / "a")

    assert ImportJob.objects.get().status == "failed"


# -- killed and resumed


class Killed(BaseException):
    """Raised where the process would be killed."""


def test_killed_import_resumes_where_it_stopped(
    project: Project, admin: User, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "CHUNK_ROWS", 10)
    path = write(tmp_path / "a.jsonl", [row(n) if n % 5 else {"bad": n} for n in range(100)])
    with monkeypatch.context() as patch:
        patch.setattr(services, "chunk_commit", killed_after(3))
        with pytest.raises(Killed):
            load(path)
    interrupted = ImportJob.objects.get()
    assert (interrupted.status, interrupted.offset) == ("running", 30)

    job = load(path)

    assert job.pk == interrupted.pk
    assert job.status == "done"
    assert counts(job) == (100, 80, 0, 0, 20)
    assert Example.objects.count() == 80
    assert ImportRefusal.objects.count() == 20


def killed_after(count: int) -> Any:
    done = iter(range(count))

    def commit(claim: services.ImportClaim, chunk: chunks.Chunk) -> bool:
        if next(done, None) is None:
            raise Killed
        return chunk_commit(claim, chunk)

    return commit


def test_chunk_that_fails_halfway_is_rolled_back(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.jsonl", [row(1)])

    def fail(new: object, *, by: User) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(chunks, "answers_create", fail)
        with pytest.raises(Killed):
            load(path)

    assert not Prompt.objects.exists()
    assert ImportJob.objects.get().offset == 0
    assert counts(load(path)) == (1, 1, 0, 0, 0)


def test_stale_import_is_taken_over_and_the_first_worker_stops_writing(
    project: Project, admin: User, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.jsonl", [row(n) for n in range(3)])
    first = import_take_here(project=project, path=path, by=admin)
    assert import_claim(first.row.pk) is None, "its heartbeat is recent"
    ImportJob.objects.update(heartbeat_at=timezone.now() - timedelta(minutes=5))

    second = import_claim(first.row.pk)
    assert second is not None
    import_execute(first)
    assert not Completion.objects.exists()
    import_execute(second)

    assert counts(ImportJob.objects.get()) == (3, 3, 0, 0, 0)


def test_second_file_waits_for_the_first(project: Project, admin: User, tmp_path: Path) -> None:
    import_take_here(project=project, path=write(tmp_path / "a.jsonl", [row(1)]), by=admin)

    with pytest.raises(UserError, match="Another import into this project is running"):
        import_take_here(project=project, path=write(tmp_path / "b.jsonl", []), by=admin)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_other_formats_resume_after_an_offset(
    suffix: str, project: Project, admin: User, tmp_path: Path
) -> None:
    table = pa.Table.from_pylist([row(n) for n in range(10)])
    path = tmp_path / f"a.{suffix}"
    if suffix == "parquet":
        pq.write_table(table, path, row_group_size=3)
    else:
        lines = [f"Q{n},A{n},1\n" for n in range(10)]
        path.write_text("".join(["prompt,completion,label\n", *lines]))
    claim = import_take_here(project=project, path=path, by=admin)
    claim.row.offset = 4

    import_execute(claim)

    texts = Completion.objects.order_by("pk").values_list("text", flat=True)
    assert list(texts) == [f"A{n}" for n in range(4, 10)]


# -- the command


def test_dry_run_writes_nothing_and_reports_counts(
    project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "a.jsonl", [row(1), row(1), {"prompt": "x"}, {}])

    call_command("import_examples", path, project="bot", dry_run=True)

    said = capsys.readouterr().out
    assert "4 rows: 1 example, 1 prompt without an answer, 1 duplicate, 1 refused." in said
    assert "row 4: none of prompt" in said
    assert "Examples with labels, Prompts only" in said
    assert not Prompt.objects.exists()
    assert not ImportJob.objects.exists()


def test_report_lists_every_refused_row_without_formulas(project: Project, tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"=cmd": number} for number in range(150)])

    load(path, report=tmp_path / "report.csv")

    text = (tmp_path / "report.csv").read_text()
    header, *rows = csv.reader(io.StringIO(text))
    assert header == ["row", "reason", "content"]
    assert [cells[0] for cells in rows] == [str(number) for number in range(1, 151)]
    assert rows[0][2] == '{"=cmd": 0}'


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"project": "nothing"}, "no project nothing"),
        ({"by": "eve@example.com"}, "no member eve@example.com"),
        ({}, "cannot be opened"),
    ],
)
def test_command_reports_wrong_options(
    options: dict[str, str], why: str, project: Project, outsider: User
) -> None:
    with pytest.raises(CommandError, match=why):
        call_command("import_examples", "/nowhere/x.jsonl", **{"project": "bot", **options})


def test_chunk_queries_do_not_grow_with_the_rows(
    project: Project, admin: User, tmp_path: Path, django_assert_max_num_queries: Any
) -> None:
    path = write(tmp_path / "a.jsonl", [row(n) for n in range(200)])
    claim = import_take_here(project=project, path=path, by=admin)

    with django_assert_max_num_queries(27):
        import_execute(claim)

    assert Example.objects.count() == 200


class Generated(io.RawIOBase):
    """A file generated while it is read: JSONL rows that are never held in memory together."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.line = json.dumps(row(0, completion="word " * 40)).encode() + b"\n"
        self.at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self.at = (0, self.at, self.rows * len(self.line))[whence] + offset
        return self.at

    def readinto(self, buffer: Any) -> int:
        size = len(self.line)
        left = max(0, self.rows * size - self.at)
        start = self.at % size
        count = min(len(buffer), left)
        buffer[:count] = (self.line * (count // size + 2))[start : start + count]
        self.at += count
        return count


@pytest.mark.long
@pytest.mark.slow
def test_memory_does_not_grow_with_the_file() -> None:
    def peak(rows: int) -> int:
        tracemalloc.start()
        file = open_rows(io.BufferedReader(Generated(rows)))  # type: ignore[arg-type]
        read = sum(chunk.rows for chunk in chunks.in_chunks(file.records()))
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert read == rows
        return most

    assert peak(20_000) < peak(2_000) * 1.2
