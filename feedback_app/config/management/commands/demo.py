"""`python manage.py demo`: everything on this machine, from the first start to Ctrl-C."""

import os
import signal
import threading
import time
from argparse import ArgumentParser
from types import FrameType
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from feedback_app.config.procfile import require_space
from feedback_app.config.stack import Stack, StackError, prepare_model, prepare_site, running
from feedback_app.feedback.services_starter import SignIn, starter_create

STEPS = 5


class Command(BaseCommand):
    help = (
        "Makes what is missing (base model, tables, static files, a starter project with its "
        "people) and runs web, engine, workers, beat and Valkey until Ctrl-C."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--port", help="port of the web pages (default: PORT, else 8000)")
        parser.add_argument("--verbose", action="store_true", help="show what the processes say")

    def handle(self, *args: Any, **options: Any) -> None:
        self.started = time.monotonic()
        # SIGINT too: a script that starts this in the background has it ignored
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, interrupt)
        try:
            self.demo(options["port"] or os.environ.get("PORT") or "8000", options["verbose"])
        except KeyboardInterrupt:
            self.stdout.write("Stopped.")
        except StackError as error:
            raise CommandError(str(error)) from error

    def demo(self, port: str, verbose: bool) -> None:
        """Each step in order; returns only by KeyboardInterrupt. Raises StackError."""
        require_space(settings.VAR)
        other = running(settings.VAR)
        if other is not None:
            raise StackError(
                f"Prospect already runs at {other.url} (process {other.pid}): use it, or stop it."
            )
        # ports are looked at first: a taken one is said before anything is made
        stack = Stack(env={"PORT": port}, verbose=verbose, say=self.say)
        self.step(1, f"Base model {settings.BASE_MODEL}")
        prepare_model(self.say, base_model=settings.BASE_MODEL, var=settings.VAR)
        self.step(2, "Database and static files")
        prepare_site()
        self.step(3, "Starter project and its people")
        sign_ins = starter_create()
        self.step(4, f"Starting {', '.join(stack.plan.commands)}")
        with stack:
            self.step(5, "Ready. Sign in as")
            self.show(sign_ins)
            self.stdout.write(f"Ctrl-C stops everything. Logs: {settings.VAR / 'logs'}")
            self.stdout.write(self.style.SUCCESS(stack.url))
            self.stdout.flush()
            try:
                threading.Event().wait()
            finally:
                self.say("Stopping; a trainer at work writes its checkpoint first …")

    def step(self, number: int, what: str) -> None:
        self.say(f"{number}/{STEPS} {what}")

    def say(self, line: str) -> None:
        self.stdout.write(f"[{time.monotonic() - self.started:4.0f} s] {line}")
        self.stdout.flush()

    def show(self, sign_ins: list[SignIn]) -> None:
        """The people of the starter project, with the passwords that were made for them here."""
        for person in sign_ins:
            self.stdout.write(f"         {person.role.label:<10} {person.email}  {person.password}")


def interrupt(number: int, frame: FrameType | None) -> None:
    """SIGTERM and a closed terminal end the demo as Ctrl-C does."""
    raise KeyboardInterrupt
