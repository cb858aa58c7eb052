"""`manage.py set_priority PROJECT low|normal|high`: a project's share of the workers."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from feedback_app.feedback.models import Project
from feedback_app.feedback.models.projects import Priority
from feedback_app.feedback.projects.services import project_priority_set


class Command(BaseCommand):
    """Who operates the installation decides between projects, not their admins."""

    help = "Set a project's share of the workers."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("project", help="the project's slug")
        parser.add_argument("priority", choices=Priority.values)

    def handle(self, *args: Any, **options: Any) -> None:
        project = Project.objects.filter(slug=options["project"]).first()
        if project is None:
            raise CommandError(f"There is no project {options['project']!r}.")
        project_priority_set(project=project, priority=Priority(options["priority"]))
        self.stdout.write(f"{project.slug}: priority {options['priority']}.")
