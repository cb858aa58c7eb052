"""Fault 9: two gigabytes are read in bounded memory, a chat of ten thousand turns is refused."""

import io
import json
import resource
from pathlib import Path

import pytest

from feedback_app.feedback.imports import chunks
from feedback_app.feedback.imports.opening import open_rows
from feedback_app.feedback.models import Project
from tests.feedback.imports.test_import import Generated, load, row, write

TWO_GIGABYTES = 2 << 30
TURNS = 10_000


@pytest.mark.long
def test_two_gigabytes_are_read_in_constant_memory() -> None:
    file = Generated(1)
    file.line = json.dumps(row(0, completion="word " * 10_000)).encode() + b"\n"
    file.rows = TWO_GIGABYTES // len(file.line)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    read = 0
    for chunk in chunks.in_chunks(open_rows(io.BufferedReader(file)).records()):  # type: ignore[arg-type]
        read += chunk.rows
    assert read == file.rows
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 100 << 10, "kilobytes"


@pytest.mark.django_db
def test_chat_of_ten_thousand_turns_is_refused_with_the_reason(
    project: Project, tmp_path: Path
) -> None:
    roles = ("user", "assistant")
    chat = [{"role": roles[n % 2], "content": f"Turn {n}."} for n in range(TURNS - 1)]
    job = load(write(tmp_path / "a.jsonl", [row(0, prompt=chat), row(1)]))
    assert (job.imported, job.refused) == (1, 1)
    assert "9,999 messages: at most" in job.refusals.get().reason
