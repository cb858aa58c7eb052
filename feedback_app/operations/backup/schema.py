"""The tables that a backup fits into: those of the migrations that it was made with.

A backup of an earlier version is restored into the tables of that version, which are then migrated.
"""

from collections.abc import Sequence

from django.contrib.auth.models import Permission
from django.contrib.contenttypes.models import ContentType
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder

from feedback_app.operations.backup.manifest import BackupError, Manifest
from feedback_app.operations.backup.tables import Model

#: Rows that migrations create: they do not make an installation used.
CREATED_BY_MIGRATE = (Permission, ContentType)

#: App and name of a migration.
Node = tuple[str, str]


def migrations_applied() -> list[str]:
    """Return the applied migrations as 'app.name', sorted; of a squashed one, those it replaces."""
    applied = set(MigrationRecorder(connection).applied_migrations())
    return sorted(f"{app}.{name}" for app, name in applied - squashed().keys())


def migrations_pending() -> list[str]:
    """Return the migrations of this version that the database does not have."""
    loader = MigrationLoader(connection)
    return sorted(
        f"{app}.{name}"
        for app, name in loader.graph.nodes.keys() - loader.applied_migrations.keys()
    )


def squashed() -> dict[Node, set[Node]]:
    """Return the squashed migrations of this version, each with those that it replaces."""
    known = MigrationLoader(connection, ignore_no_migrations=True).disk_migrations
    return {node: set(one.replaces) for node, one in known.items() if one.replaces}


def database_require_empty(tables: Sequence[Model]) -> None:
    """Raise BackupError if one of these tables exists and has a row that somebody made."""
    existing = set(connection.introspection.table_names())
    for model in tables:
        table = model._meta.db_table
        if table in existing and model not in CREATED_BY_MIGRATE and model._base_manager.exists():
            raise BackupError(
                f"The installation is not empty: the table {table} has rows. "
                "Restore into a new database, or an installation that nobody has used yet."
            )


def tables_prepare(manifest: Manifest) -> list[Model]:
    """Create the tables of the backup's migrations if there are none; return their models.

    Raises BackupError if this version does not know these migrations, or there are other tables.
    """
    executor = MigrationExecutor(connection)
    nodes = {(app, name) for app, _, name in (one.partition(".") for one in manifest.migrations)}
    if unknown := nodes - set(executor.loader.disk_migrations):
        raise BackupError(
            f"The backup is of Prospect {manifest.prospect}, which has migrations that this "
            f"version has not ({', '.join(sorted(name for _, name in unknown)[:3])}). "
            "Install that version or a later one and restore again."
        )
    nodes = _in_one_step(executor, nodes)
    if applied := migrations_applied():
        if applied != manifest.migrations:
            raise BackupError(
                "The database has the tables of another version than the backup. Restore into a "
                "database without tables (do not run migrate before): the restore creates them."
            )
    else:
        # the migrations that no other one of them depends on
        graph = executor.loader.graph.node_map
        needed = {parent.key for node in nodes for parent in graph[node].parents}
        executor.migrate(sorted(nodes - needed))
    state = executor.loader.project_state(sorted(nodes))
    return list(state.apps.get_models(include_auto_created=True))


def _in_one_step(executor: MigrationExecutor, nodes: set[Node]) -> set[Node]:
    """Return `nodes` with the squashed migrations in place of those that they replace.

    A backup of a version that had only some of these needs them one by one: then no migration is
    replaced.
    """
    replaced = squashed()
    if any(each & nodes and not each <= nodes for each in replaced.values()):
        executor.loader = MigrationLoader(connection, replace_migrations=False)
        return nodes
    for squash, each in replaced.items():
        if each <= nodes:
            nodes = nodes - each | {squash}
    return nodes
