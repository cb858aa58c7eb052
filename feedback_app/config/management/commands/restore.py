"""`python manage.py restore DIR`: fills an empty installation from a backup."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from feedback_app.operations.backup.manifest import BackupError
from feedback_app.operations.backup.services import backup_restore


class Command(BaseCommand):
    help = (
        "Verifies a backup, then fills an empty installation from it, on SQLite or PostgreSQL "
        "whatever it was made on. Run it while nothing else runs."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("directory", type=Path, help="what `backup` wrote")
        parser.add_argument(
            "--other-key",
            action="store_true",
            help="accept that secrets sealed with another SECRET_KEY cannot be read any more",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            manifest = backup_restore(
                directory=options["directory"],
                say=self.stdout.write,
                other_key=options["other_key"],
            )
        except BackupError as error:
            raise CommandError(str(error)) from error
        for fault in manifest.missing:
            self.stderr.write(f"Not in the backup: {fault}.")
