"""A database of earlier versions is migrated with its rows, and new migrations need no downtime.

There is no tag yet: the earlier versions are the first commits with the whole loop, and the last
one before tables were renamed.
"""

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.db import connection
from django.db.migrations import Migration
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.state import ProjectState
from django_migration_linter import MigrationLinter
from pytest_django import Settings

from tests.stacks import database_url

#: Our apps; those without migrations so far are held to the rule from their first one on.
OURS = ("accounts", "feedback", "training", "serving", "api", "privacy", "config")
UNSAFE = "tests.operations.unsafe.migrations"
#: The last migrations that were written before the rule (CONTRIBUTING.md). Do not move these up.
BASELINE = {
    "accounts": "0005_api_receipts",
    "feedback": "0022_plain_labels",
    "training": "0004_erasure_claims",
    "serving": "0007_assignments",
}
#: Later ones that break the rule on purpose, and why: the release notes must name the downtime.
ACCEPTED = {
    "0023_project_split_key": "a column that the version before does not fill",
    "0008_counted_people": "a column and a unique constraint that the version before does not fill",
    "0005_run_request_id": "a column that the version before does not fill",
    # the version before files new prompts as held out, which is no split any more
    "0026_three_splits": "a longer text column",
    "0030_sampling_cancelled": "a longer text column",
    "0028_remove_heldout_percent": "a column that the version before reads",
    "0007_three_splits": "a longer text column",
    # of a table with few rows, and weaker than the one that they replace
    "0018_sweeps": "unique indexes, which the version before keeps to",
    "0009_remove_held_out_counts": "columns that the version before reads",
}


@pytest.fixture
def empty_database(tmp_path: Path) -> Iterator[str]:
    with database_without_tables(tmp_path, "earlier") as url:
        yield url


@contextlib.contextmanager
def database_without_tables(directory: Path, name: str) -> Iterator[str]:
    """Yield the URL of a database without tables, of the same kind as the suite's."""
    if connection.vendor == "sqlite":
        yield f"sqlite:///{directory / name}.sqlite3"
        return
    name = f"{name}_{os.getpid()}"
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {name}")
    yield database_url().rsplit("/", 1)[0] + f"/{name}"
    with connection.cursor() as cursor:
        cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")


def printed_by(module: str, database: str, var: Path, *arguments: str) -> Any:
    """Run a module in a process of its own on this database; return the JSON that it prints."""
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=django_settings.BASE_DIR,
        env={
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "feedback_app.config.settings",
            "DATABASE_URL": database,
            "PROSPECT_VAR": str(var),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_database_of_earlier_versions_is_migrated_with_its_rows(
    empty_database: str, tmp_path: Path
) -> None:
    assert printed_by("tests.operations.earlier", empty_database, tmp_path) == {
        "completions": {
            "base": ["sampled", "bread", 0, False, [1, 2, 3]],
            "bot@12": ["sampled", "bread", 12, True, [1, 2, 3]],
            "import": ["import", "bread", 0, False, [1, 2, 3]],
        },
        "hashes": [64, 64, 64],
        "guidelines": [[1, "Be kind."]],
        "votes": [
            ["down", 0, "ann@example.com"],
            ["down", 0, "bob@example.com"],
            ["up", 0, "ann@example.com"],
            ["up", 0, "ann@example.com"],
        ],
        "verdict": "up",
        "answer": ["bot@1  1.5"],
        "live": ["bot@1"],
        "adapter": "bot@1",
        "run": ["succeeded", 1],
        "snapshot": {
            "train_up": 1,
            "validation_up": 0,
            "validation_down": 1,
            "test_up": 0,
            "test_down": 0,
        },
        "turns": [
            {"role": "user", "content": "Hello"},
            {"role": "assistant", "content": "Answer 0."},
        ],
        "problems": [],
        "a vote changes its example": True,
    }


@pytest.mark.long
@pytest.mark.django_db(transaction=True)
def test_held_out_prompts_are_divided_and_training_prompts_stay(
    empty_database: str, tmp_path: Path
) -> None:
    found = printed_by("tests.operations.earlier_splits", empty_database, tmp_path)

    assert found["percent"] == {"bot": [7, 13], "small": [5, 5], "large": [17, 33]}
    assert found["training prompts stay"]
    held = found["divided"]
    assert set(held) == {"validation", "test"}
    assert held["validation"] + held["test"] == 300
    # two thirds of 300, by a hash
    assert 170 < held["test"] < 220
    assert found["examples or items in another split than their prompt"] == 0
    # a hundred items, of which five were erased after the snapshot
    assert found["snapshot"]["sum"] == [50, 50]
    assert found["snapshot"]["test"] == found["snapshot"]["test items"]
    assert found["stored figures"] == 0
    assert found["statements"] < 60
    assert found["the same after an interruption"]
    assert found["reversed"] == {
        "splits": {"heldout": 300, "train": 100},
        "examples": {"heldout": 300, "train": 100},
        "items": {"heldout": 95, "train": 10},
        "percent": [20, 10, 50],
        "snapshot": [50, 50],
    }


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_squashed_migrations_make_the_tables_that_the_others_make_one_by_one(
    tmp_path: Path,
) -> None:
    made = {}
    for way in ("squashed", "one by one"):
        with database_without_tables(tmp_path, way.split()[0]) as url:
            made[way] = printed_by("tests.operations.tables", url, tmp_path, way)

    assert made["squashed"] == made["one by one"]
    assert len(made["squashed"]["tables"]) > 60
    assert made["squashed"]["pending"] == []


# -- migrations without downtime


def lint(migrations: list[Migration]) -> str:
    """Return what the linter says against these migrations; empty if nothing."""
    if connection.vendor != "postgresql":
        pytest.skip("SQLite copies a table to change it: the rule is for PostgreSQL's statements")
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        linter = MigrationLinter(no_cache=True, all_warnings_as_errors=True, quiet=["ok"])
        for migration in migrations:
            linter.lint_migration(migration)
    return said.getvalue()


@pytest.mark.django_db(transaction=True)  # an index is not built concurrently in a transaction
def test_migrations_since_the_baseline_need_no_downtime(settings: Settings) -> None:
    settings.MIGRATION_MODULES = {}  # pytest's --nomigrations hides them
    found = MigrationLoader(connection).disk_migrations.items()
    for app, last in BASELINE.items():
        assert (app, last) in dict(found), "the baseline names a migration that does not exist"
    new = [
        migration
        for (app, name), migration in sorted(found)
        if app in OURS and name > BASELINE.get(app, "") and name not in ACCEPTED
    ]
    assert lint(new) == ""


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("0002_drop_column", "DROPPING columns"),
        ("0003_rename_column", "RENAMING columns"),
        ("0004_not_null_column", "NOT NULL constraint"),
        ("0005_index", "CREATE INDEX"),
        ("0006_not_reversible", "RunPython"),
        ("0007_alter_column", "ALTERING columns"),
    ],
)
def test_migration_that_breaks_the_running_version_is_found(
    settings: Settings, name: str, message: str
) -> None:
    settings.MIGRATION_MODULES = {"privacy": UNSAFE}
    loader = MigrationLoader(connection)

    assert message in lint([loader.disk_migrations["privacy", name]])


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("name", ["0001_initial", "0008_safe"])
def test_migration_that_the_running_version_tolerates_is_accepted(
    settings: Settings, name: str
) -> None:
    settings.MIGRATION_MODULES = {"privacy": UNSAFE}
    loader = MigrationLoader(connection)

    assert lint([loader.disk_migrations["privacy", name]]) == ""


@pytest.mark.django_db(transaction=True)
def test_index_is_built_without_a_lock_on_both_databases(settings: Settings) -> None:
    settings.MIGRATION_MODULES = {"privacy": UNSAFE}
    found = MigrationLoader(connection).disk_migrations
    with connection.schema_editor() as editor:
        state = found["privacy", "0001_initial"].apply(ProjectState(), editor)
    thing = state.apps.get_model("privacy", "Thing")
    try:
        with connection.schema_editor(atomic=False) as editor:
            found["privacy", "0008_safe"].apply(state, editor)
        with connection.cursor() as cursor:
            indexes = connection.introspection.get_constraints(cursor, "privacy_thing")
        assert indexes["thing_three"]["columns"] == ["three"]
    finally:
        with connection.schema_editor() as editor:
            editor.delete_model(thing)
