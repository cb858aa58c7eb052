"""Migrate the empty database in DATABASE_URL, with squashed migrations or one by one; print its
tables as JSON, and what `manage.py migrate` would still apply. Run by test_upgrades.py."""

import json
import sys
from typing import Any

import django
from django.core.management import call_command
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.loader import MigrationLoader

from tests.operations.earlier import one_by_one


def main() -> None:
    django.setup()
    if sys.argv[1] == "squashed":
        call_command("migrate", verbosity=0, interactive=False)
    else:
        executor = MigrationExecutor(connection)
        executor.loader = one_by_one()
        executor.migrate(executor.loader.graph.leaf_nodes())
    loader = MigrationLoader(connection)
    pending = loader.graph.nodes.keys() - loader.applied_migrations.keys()
    found = {"tables": tables(), "pending": sorted(".".join(node) for node in pending)}
    json.dump(found, sys.stdout)


def tables() -> dict[str, Any]:
    """Return columns, and constraints and indexes by name, of each table."""
    with connection.cursor() as cursor:
        names = sorted(connection.introspection.table_names(cursor))
        return {name: {"columns": columns(cursor, name), **rules(cursor, name)} for name in names}


def columns(cursor: Any, table: str) -> list[list[Any]]:
    """Return name, type, size, whether NULL is allowed, and default, in the order of names."""
    described = connection.introspection.get_table_description(cursor, table)
    return sorted(
        [one.name, str(one.type_code), one.display_size, one.null_ok, one.default]
        for one in described
    )


def rules(cursor: Any, table: str) -> dict[str, Any]:
    """Return constraints and indexes; foreign keys and generated names by what they say."""
    found = connection.introspection.get_constraints(cursor, table)
    return {
        "rules": sorted(
            json.dumps(
                {**rule, "definition": str(rule.get("definition")), "name": own_name(name, table)},
                sort_keys=True,
                default=str,
            )
            for name, rule in found.items()
        )
    }


def own_name(name: str, table: str) -> str:
    """Return the name of a rule that a model gives it, nothing for one that the database makes."""
    return "" if name.startswith((table, "__", "fk_")) else name


if __name__ == "__main__":
    main()
