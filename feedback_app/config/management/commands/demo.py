"""`python manage.py demo`: everything on this machine, from the first start to Ctrl-C."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from feedback_app.localstack import supervisor
from feedback_app.localstack.__main__ import start


class Command(BaseCommand):
    help = (
        "Makes what is missing (base model, tables, static files, a starter project with its "
        "people) and runs web, engine, workers, beat and Valkey until Ctrl-C."
    )
    requires_system_checks = []  # `prepare` runs them, beside the start of the engine

    def add_arguments(self, parser: ArgumentParser) -> None:
        supervisor.add_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        arguments = ["--port", options["port"]] if options["port"] else []
        arguments += ["--verbose"] if options["verbose"] else []
        start(arguments)
