"""`python manage.py import_adapter PROJECT DIR`: a version that was trained elsewhere."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from feedback_app.feedback.models import Project
from feedback_app.training.adapter_import.services import import_directory
from feedback_app.web.errors import UserError


class Command(BaseCommand):
    help = (
        "Imports a LoRA adapter from a directory of PEFT (adapter_config.json and "
        "adapter_model.safetensors). A gpu worker verifies it, and the gate judges it."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("project")
        parser.add_argument("directory", type=Path, metavar="DIR")

    def handle(self, *args: Any, **options: Any) -> None:
        project = Project.objects.filter(slug=options["project"]).first()
        if project is None:
            raise CommandError(f"There is no project {options['project']}.")
        try:
            run = import_directory(project=project, by=None, source=options["directory"])
        except UserError as refusal:
            raise CommandError(str(refusal)) from refusal
        self.stdout.write(f"Run {run.number} waits for a worker, who verifies it.")
