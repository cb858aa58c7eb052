"""`python manage.py verify FILE`: whether a dossier is as it was signed."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from feedback_app.serving.dossier.signed_file import BadDossier, dossier_verify


class Command(BaseCommand):
    help = (
        "Verifies the signed dossier of a version, byte by byte, without database and network. "
        "Exit code 1 if any byte differs, or if another key than --key has signed it."
    )
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", type=Path)
        parser.add_argument(
            "--key",
            default="",
            help="the public key that must have signed it, or its fingerprint from the version's "
            "Lineage page",
        )
        parser.add_argument("--markdown", action="store_true", help="print the dossier's text")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            found = dossier_verify(options["file"].read_bytes(), key=options["key"])
        except (BadDossier, OSError) as error:
            raise CommandError(f"{options['file']}: {error}") from error
        if options["markdown"]:
            self.stdout.write(found.markdown)
            return
        name, at = found.dossier["version"]["name"], found.dossier["installation"]["written_at"]
        self.stdout.write(f"{name}: every byte is as it was signed on {at}.")
        self.stdout.write(f"Fingerprint of the key: {found.fingerprint}")
        if not options["key"]:
            self.stdout.write(
                "Compare it with the one on the version's Lineage page, or pass it as --key: "
                "anybody can sign a changed file with a key of their own."
            )
