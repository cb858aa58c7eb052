"""`python manage.py train --project SLUG`: what the button Train now does."""

import time
from argparse import ArgumentParser, BooleanOptionalAction
from collections.abc import Callable
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from feedback_app.feedback.models import Project
from feedback_app.training.models import Run
from feedback_app.training.runs.config import CHECKPOINTING, RunConfig, set_values
from feedback_app.training.runs.presets import BY_KEY, preset_config
from feedback_app.training.runs.services import run_request
from feedback_app.training.runs.settings import GROUPS, SETTINGS, Setting
from feedback_app.web.errors import UserError

#: How a setting without a value is written.
EMPTY = "none"


class Command(BaseCommand):
    help = "Queues a training run on the project's examples; a gpu worker executes it."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--project", required=True)
        parser.add_argument("--wait", action="store_true", help="wait until the run has ended")
        settings_arguments_add(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        project = Project.objects.filter(slug=options["project"]).first()
        if project is None:
            raise CommandError(f"There is no project {options['project']}.")
        try:
            run = run_request(project=project, by=None, config=config_of(project, options))
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


def settings_arguments_add(parser: ArgumentParser) -> None:
    """Add an argument for each setting of a run, and `--preset`."""
    parser.add_argument(
        "--preset",
        choices=list(BY_KEY),
        default="default",
        help="settings to begin with; those given besides replace its own",
    )
    groups = {title: parser.add_argument_group(title) for title in GROUPS}
    for setting in SETTINGS:
        name = f"--{setting.name.replace('_', '-')}"
        groups[setting.group].add_argument(name, default=None, **argument_of(setting))


def argument_of(setting: Setting) -> dict[str, Any]:
    """Return the arguments of add_argument for a setting."""
    text = f"{setting.label}. {setting.help}".replace("%", "%%")
    if setting.choices:
        values = [value or EMPTY for value, _ in setting.choices]
        return {"choices": values, "help": text}
    if setting.bounds is None:
        return {"action": BooleanOptionalAction, "help": text}
    low, high = setting.bounds
    text += f" {low:.10g} to {high:.10g}"
    text += f", or {EMPTY}: {setting.empty}." if setting.empty else "."
    kind = int if setting.whole else float
    return {"type": optional(kind) if setting.empty else kind, "help": text}


def optional(kind: Callable[[str], float]) -> Callable[[str], float | str]:
    """Return a type for numbers that may have no value."""

    def read(text: str) -> float | str:
        return text if text == EMPTY else kind(text)

    read.__name__ = kind.__name__  # in argparse's message
    return read


def config_of(project: Project, options: dict[str, Any]) -> RunConfig:
    """Return the preset's settings with those that are given. Raises UserError."""
    given = {
        setting.name: None if options[setting.name] == EMPTY else options[setting.name]
        for setting in SETTINGS
        if options.get(setting.name) is not None
    }
    if "gradient_checkpointing" in given:
        given["gradient_checkpointing"] = CHECKPOINTING[given["gradient_checkpointing"] or ""]
    preset = preset_config(BY_KEY[options.get("preset") or "default"], project.base_model)
    return set_values(preset, given)
