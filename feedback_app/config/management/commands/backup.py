"""`python manage.py backup DIR`: the database and its artifacts, while everything runs."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from feedback_app.operations.backup.manifest import BackupError
from feedback_app.operations.backup.services import backup_make

#: The exit code of a backup without some artifacts, which were missing or damaged before.
INCOMPLETE = 2


class Command(BaseCommand):
    help = (
        "Writes database and artifacts into a new directory, as of one moment, while everything "
        "runs. Exit code 2: complete except for artifacts that are missing or damaged."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("directory", type=Path, help="a new or empty directory")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            manifest = backup_make(directory=options["directory"], say=self.stdout.write)
        except BackupError as error:
            raise CommandError(str(error)) from error
        self.stdout.write(
            "SECRET_KEY is not in the backup. Keep it elsewhere: without it, second factors, "
            "webhook secrets and API keys of judge models in the backup cannot be read."
        )
        if manifest.missing:
            raise CommandError(
                "The backup is complete except for artifacts that are missing or damaged: "
                f"{'; '.join(manifest.missing)}.",
                returncode=INCOMPLETE,
            )
