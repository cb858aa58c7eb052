"""`python manage.py export_examples --project SLUG --format jsonl|parquet|csv`."""

from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from feedback_app.feedback.exports.files import export_write
from feedback_app.feedback.exports.rows import FORMATS, ExportRow, project_rows
from feedback_app.feedback.models import Project
from feedback_app.training.snapshots.rows import snapshot_rows


class Command(BaseCommand):
    help = "Writes the project's KTO examples, or one run's snapshot, to a file."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--project", required=True)
        parser.add_argument("--format", required=True, choices=FORMATS)
        parser.add_argument("--out", type=Path, help="default: <project>-examples.<format>")
        parser.add_argument("--snapshot", type=int, metavar="N", help="the snapshot of run N")
        parser.add_argument("--votes", action="store_true", help="include votes, under pseudonyms")

    def handle(self, *args: Any, **options: Any) -> None:
        project = Project.objects.filter(slug=options["project"]).first()
        if project is None:
            raise CommandError(f"There is no project {options['project']}.")
        number = options["snapshot"]
        what = "examples" if number is None else f"run-{number}"
        path: Path = options["out"] or Path(f"{project.slug}-{what}.{options['format']}")
        partial = path.with_name(f"{path.name}.partial")
        try:
            rows = self.rows(project, number, votes=options["votes"])
            with partial.open("w+b") as file:  # read again where Parquet needs more columns
                count = export_write(
                    rows, file, as_format=options["format"], votes=options["votes"]
                )
            partial.replace(path)
        except OSError as error:
            raise CommandError(f"{path} could not be written: {error.strerror}.") from error
        finally:
            partial.unlink(missing_ok=True)
        self.stdout.write(f"{count:,} examples are in {path}.")

    def rows(self, project: Project, number: int | None, *, votes: bool) -> Iterator[ExportRow]:
        if number is None:
            return project_rows(project, votes=votes)
        run = project.runs.filter(number=number).select_related("snapshot").first()
        if run is None:
            raise CommandError(f"{project.name} has no run {number}.")
        if not run.snapshot.taken:
            raise CommandError(f"{run} has no snapshot yet: a worker takes it.")
        return snapshot_rows(run.snapshot, votes=votes)
