"""`python manage.py doctor`: what is wrong with this installation, and what to do."""

import json
import sys
from argparse import ArgumentParser
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand

from feedback_app.operations.doctor.services import Examination, examine


class Command(BaseCommand):
    help = (
        "Checks settings, database, files, broker, workers, beat, engines, people and votes, and "
        "says what is wrong and what to do. Changes nothing. Exit code 1 if something is wrong."
    )
    requires_system_checks = []  # they would end the command before it explains anything

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="print the findings as JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        done = examine()
        if options["json"]:
            self.stdout.write(json.dumps(as_json(done), indent=1))
        else:
            self.show(done)
        if not done.healthy:
            sys.exit(1)

    def show(self, done: Examination) -> None:
        for name, problem in done.found:
            mark = self.style.WARNING("!") if problem.warning else self.style.ERROR("✗")
            self.stdout.write(f"{mark} {name}: {problem.what}\n    {problem.do}")
        if done.skipped:
            self.stdout.write(f"Not checked because of the above: {', '.join(done.skipped)}.")
        wrong = sum(not problem.warning for _, problem in done.found)
        warnings = len(done.found) - wrong
        summary = f"{len(done.checked)} checks: {wrong} problems, {warnings} warnings."
        self.stdout.write(summary if wrong else self.style.SUCCESS(summary))


def as_json(done: Examination) -> dict[str, Any]:
    return {
        "healthy": done.healthy,
        "checked": done.checked,
        "skipped": done.skipped,
        "findings": [{"check": name, **asdict(problem)} for name, problem in done.found],
    }
