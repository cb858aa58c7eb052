"""`python manage.py prepare`: what the supervisor has made before the pages are served."""

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management import call_command
from django.core.management.base import BaseCommand
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from feedback_app.feedback.projects.starter import starter_create


class Command(BaseCommand):
    help = "Brings tables and static files up to date with the code. `demo` runs it."
    requires_system_checks = []  # they load every page: run only when tables change, see below

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--starter",
            action="store_true",
            help="also create the starter project once, and print how its people sign in as JSON",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        executor = MigrationExecutor(connection)
        if executor.migration_plan(executor.loader.graph.leaf_nodes()):
            self.check()
            call_command("migrate", verbosity=0, interactive=False)
        call_command("collectstatic", verbosity=0, interactive=False)
        if options["starter"]:
            people = [
                {"email": one.email, "password": one.password, "role": str(one.role.label)}
                for one in starter_create()
            ]
            self.stdout.write(json.dumps(people))
