"""`python manage.py reproduce SLUG NUMBER`: train a run again and compare the adapter."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from feedback_app.training.launchers.base import LaunchError
from feedback_app.training.launchers.selection import launcher_selected
from feedback_app.training.models import Run
from feedback_app.training.reproduction.services import TOLERANCE, Reproduction, run_reproduce
from feedback_app.web.errors import UserError


class Command(BaseCommand):
    help = (
        "Trains a finished run again from its snapshot, here and without a worker. It fails unless "
        "the adapter has the same bytes or, where one of both runs was on a GPU, nearly the same "
        "losses."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("project", help="the project's slug")
        parser.add_argument("run", type=int, help="the run's number")
        parser.add_argument("--keep", action="store_true", help="keep the new run's files")

    def handle(self, *args: Any, **options: Any) -> None:
        rows = Run.objects.select_related("project", "snapshot")
        run = rows.filter(project__slug=options["project"], number=options["run"]).first()
        if run is None:
            raise CommandError(f"{options['project']} has no run {options['run']}.")
        try:
            found = run_reproduce(
                run, launcher_selected(run.project), keep=options["keep"], progress=self.progress
            )
        except (UserError, LaunchError) as error:
            raise CommandError(str(error)) from error
        self.report(run, found)

    def progress(self, step: int, total: int) -> None:
        if step == total or step % max(1, total // 10) == 0:
            self.stdout.write(f"step {step} of {total}")

    def report(self, run: Run, found: Reproduction) -> None:
        if found.equal:
            self.stdout.write(f"{run}: the same adapter, SHA-256 {found.sha256}.")
            return
        difference = (
            "no step was recorded then"
            if found.difference is None
            else f"losses differ by {found.difference:.2%} at most"
        )
        text = (
            f"{run}: another adapter, SHA-256 {found.again} instead of {found.sha256}; "
            f"{difference}; trained on {found.device} then and on {found.device_again} now."
        )
        on_gpu = any("cpu" not in device for device in (found.device, found.device_again))
        if on_gpu and found.close:
            self.stdout.write(f"{text} That is within {TOLERANCE:.0%}, as GPUs round.")
            return
        raise CommandError(
            f"{text} On a CPU other library versions, threads or another processor can be the "
            "reason."
        )
