"""`python manage.py train --project SLUG`: what the button Train now does."""

import time
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from feedback_app.feedback.models import Project
from feedback_app.training.models import Run
from feedback_app.training.runs.services import run_request
from feedback_app.web.errors import UserError


class Command(BaseCommand):
    help = "Queues a training run on the project's examples; a gpu worker executes it."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--project", required=True)
        parser.add_argument("--wait", action="store_true", help="wait until the run has ended")

    def handle(self, *args: Any, **options: Any) -> None:
        project = Project.objects.filter(slug=options["project"]).first()
        if project is None:
            raise CommandError(f"There is no project {options['project']}.")
        try:
            run = run_request(project=project, by=None)
        except UserError as objection:
            raise CommandError(str(objection)) from objection
        self.stdout.write(f"Run {run.number} waits for a worker.")
        if options["wait"]:
            self.watch(run)

    def watch(self, run: Run) -> None:
        shown = ""
        while run.active:
            line = f"{run.get_status_display()} {run.phase} {run.percent} %"
            if line != shown:
                self.stdout.write(line)
                shown = line
            time.sleep(1)
            run.refresh_from_db()
        if run.status != Run.Status.SUCCEEDED:
            raise CommandError(f"Run {run.number}: {run.get_status_display()}. {run.error}")
        self.stdout.write(f"{run.adapter.name} is ready. {run.adapter.gate['sentence']}")
