"""`python manage.py demo`: everything on this machine, from the first start to Ctrl-C."""

import os
import sys
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from feedback_app.localstack import supervisor


class Command(BaseCommand):
    help = (
        "Makes what is missing (base model, tables, static files, a starter project with its "
        "people) and runs web, engine, workers, beat and Valkey until Ctrl-C."
    )
    requires_system_checks = []  # `prepare` runs them, beside the start of the engine

    def add_arguments(self, parser: ArgumentParser) -> None:
        supervisor.add_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        """Replace this process by the supervisor: it needs no Django for as long as it runs.

        The environment is what settings.py read, with the variables of `.env`.
        """
        arguments = ["--port", options["port"]] if options["port"] else []
        arguments += ["--verbose"] if options["verbose"] else []
        os.environ["PROSPECT_VAR"] = str(settings.VAR)
        os.chdir(settings.BASE_DIR)
        os.execv(  # noqa: S606 - our own module
            sys.executable, [sys.executable, "-m", "feedback_app.localstack.supervisor", *arguments]
        )
