"""`python manage.py rollback --project SLUG`: release the version that was live before."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from feedback_app.feedback.models import Project
from feedback_app.serving.engine.client import EngineError
from feedback_app.serving.releases.services import release_rollback
from feedback_app.web.errors import UserError


class Command(BaseCommand):
    help = "Releases the version that was live before the current one (the base if none was)."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--project", required=True)
        parser.add_argument("--reason", default="Rolled back")

    def handle(self, *args: Any, **options: Any) -> None:
        project = Project.objects.filter(slug=options["project"]).first()
        if project is None:
            raise CommandError(f"There is no project {options['project']}.")
        try:
            release = release_rollback(project=project, by=None, reason=options["reason"])
        except (UserError, EngineError) as error:
            raise CommandError(str(error)) from error
        self.stdout.write(f"{release.version} is live again.")
