"""Migration operations for indexes of tables that are in use."""

from typing import Any, ClassVar

from django.contrib.postgres.operations import AddIndexConcurrently, RemoveIndexConcurrently
from django.db.migrations import AddIndex, RemoveIndex
from django.db.migrations.operations.base import Operation


class _WithoutLock(Operation):
    """Work while others write, on PostgreSQL; as `ordinary` on SQLite, where Django's concurrent
    operations fail. The migration needs `atomic = False`.
    """

    ordinary: ClassVar[type[Operation]]

    def database_forwards(
        self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any
    ) -> None:
        if schema_editor.connection.vendor == "postgresql":
            super().database_forwards(app_label, schema_editor, from_state, to_state)
        else:
            self.ordinary.database_forwards(self, app_label, schema_editor, from_state, to_state)

    def database_backwards(
        self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any
    ) -> None:
        if schema_editor.connection.vendor == "postgresql":
            super().database_backwards(app_label, schema_editor, from_state, to_state)
        else:
            self.ordinary.database_backwards(self, app_label, schema_editor, from_state, to_state)


class AddIndexWithoutLock(_WithoutLock, AddIndexConcurrently):
    """Build an index."""

    ordinary = AddIndex


class RemoveIndexWithoutLock(_WithoutLock, RemoveIndexConcurrently):
    """Remove an index."""

    ordinary = RemoveIndex
