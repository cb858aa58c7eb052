"""`python manage.py sweep --project SLUG --set SETTING=VALUES`: what the form New sweep does."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from feedback_app.feedback.models import Project
from feedback_app.training.management.commands.train import config_of, settings_arguments_add
from feedback_app.training.models import Sweep
from feedback_app.training.sweeps.services import Search, sweep_request
from feedback_app.training.sweeps.space import MOST_TRIALS, SEARCHED, Space, values_read
from feedback_app.web.errors import UserError


class Command(BaseCommand):
    help = (
        "Queues trials with several settings on one snapshot of the project's examples; gpu "
        "workers train them, and the page of the sweep compares them on validation examples."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--project", required=True)
        parser.add_argument(
            "--set",
            action="append",
            required=True,
            metavar="SETTING=VALUES",
            dest="varied",
            help="a setting to vary, as learning_rate=1e-5,1e-4 or, with --random, as "
            f"learning_rate=1e-5 to 1e-3; up to four times. Settings: {', '.join(SEARCHED)}",
        )
        parser.add_argument(
            "--random",
            type=int,
            metavar="TRIALS",
            help=f"draw this many trials, at most {MOST_TRIALS}, instead of every combination",
        )
        parser.add_argument("--draw-seed", type=int, default=0, help="of the random draws")
        parser.add_argument(
            "--max-hours", type=float, default=8.0, help="worker hours of all trials together"
        )
        parser.add_argument(
            "--at-once", type=int, default=1, help="trials that train at the same time"
        )
        parser.add_argument("--no-early-stopping", action="store_true")
        settings_arguments_add(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        project = Project.objects.filter(slug=options["project"]).first()
        if project is None:
            raise CommandError(f"There is no project {options['project']}.")
        grid = options["random"] is None
        try:
            search = Search(
                space_of(options["varied"]),
                method=Sweep.Method.GRID if grid else Sweep.Method.RANDOM,
                trials=options["random"] or 0,
                seed=options["draw_seed"],
                early_stopping=not options["no_early_stopping"],
                max_hours=options["max_hours"],
                at_once=options["at_once"],
            )
            base = config_of(project, options)
            sweep = sweep_request(project=project, by=None, base=base, search=search)
        except UserError as objection:
            raise CommandError(str(objection)) from objection
        self.stdout.write(
            f"{sweep}: {sweep.trials.count()} trials wait for a worker, about "
            f"{sweep.forecast['minutes']:.0f} minutes."
        )


def space_of(given: list[str]) -> Space:
    """Return the settings to vary with their values. Raises UserError."""
    space = {}
    for one in given:
        name, found, text = one.partition("=")
        if not found:
            raise UserError(f"{one[:80]}: write SETTING=VALUES, as learning_rate=1e-5,1e-4.")
        space[name] = values_read(name, text)
    return space
