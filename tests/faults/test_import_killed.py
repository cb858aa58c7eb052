"""`import_examples` killed with SIGKILL halfway: the same command resumes, without duplicates."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from django.conf import settings

from tests.engines import PATIENCE

pytestmark = pytest.mark.slow

ROWS = 8_000
DEADLINE = PATIENCE


@pytest.fixture
def var(tmp_path: Path) -> Path:
    """Create a separate database on disk with one project."""
    manage(tmp_path, "migrate", "--verbosity=0")
    manage(tmp_path, "createsuperuser", "--noinput", "--email=owner@example.com")
    manage(tmp_path, "create_project", "bot")
    return tmp_path


def environment(var: Path) -> dict[str, str]:
    own = {"PROSPECT_VAR": str(var), "DJANGO_SUPERUSER_PASSWORD": "correct horse battery"}
    return {**{k: v for k, v in os.environ.items() if k != "DATABASE_URL"}, **own}


def start(var: Path, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "manage.py", *arguments],
        cwd=settings.BASE_DIR,
        env=environment(var),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def manage(var: Path, *arguments: str) -> str:
    process = start(var, *arguments)
    said, _ = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0, said
    return said


def one(var: Path, query: str) -> int:
    with closing(sqlite3.connect(var / "prospect.sqlite3", timeout=30)) as database:
        (found,) = database.execute(query).fetchone()
    return int(found or 0)


@pytest.mark.long
def test_killed_import_command_resumes(var: Path) -> None:
    path = var / "votes.jsonl"
    with path.open("w") as file:
        for number in range(ROWS):
            row = {"prompt": f"Q{number // 3}", "completion": f"A{number}", "label": number % 2}
            file.write(json.dumps(row if number % 100 else {"bad": number}) + "\n")
    command = ("import_examples", str(path), "--project=bot")

    process = start(var, *command)
    until = time.monotonic() + DEADLINE
    while not one(var, "SELECT max(offset) FROM feedback_importjob"):
        assert process.poll() is None
        assert time.monotonic() < until
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=DEADLINE)
    left = one(var, "SELECT max(offset) FROM feedback_importjob")
    assert process.returncode == -signal.SIGKILL
    assert 0 < left < ROWS

    said = manage(var, *command)

    assert f"Continuing after row {left:,}." in said
    assert "8,000 rows: 7,920 examples, 0 prompts without an answer, 0 duplicates, 80" in said
    for table in ("vote", "example", "completion", "voteevent"):
        assert one(var, f"SELECT count(*) FROM feedback_{table}") == 7_920  # noqa: S608
    assert one(var, "SELECT count(*) FROM feedback_importrefusal") == 80
