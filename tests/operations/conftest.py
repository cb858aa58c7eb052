"""Migrations in a database whose tables were made from the models (pytest's --nomigrations)."""

from collections.abc import Iterator

import pytest
from django.db import connection
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder
from pytest_django import Settings


@pytest.fixture
def migrations_recorded(transactional_db: None, settings: Settings) -> Iterator[None]:
    """Record all migrations as applied, for tests that read which ones are."""
    settings.MIGRATION_MODULES = {}  # pytest's --nomigrations hides them
    recorder = MigrationRecorder(connection)
    if recorder.has_table():
        yield
        return
    recorder.ensure_schema()
    for app, name in MigrationLoader(connection).disk_migrations:
        recorder.record_applied(app, name)
    yield
    with connection.schema_editor() as editor:
        editor.delete_model(recorder.Migration)
