"""`python manage.py import_examples FILE --project SLUG [--dry-run]`."""

from argparse import ArgumentParser
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from feedback_app.accounts.models import Role, User
from feedback_app.feedback.exports.rows import csv_line
from feedback_app.feedback.imports.chunks import Refusal, chunk_try, in_chunks
from feedback_app.feedback.imports.mapping import labels_of
from feedback_app.feedback.imports.opening import open_path, open_rows
from feedback_app.feedback.imports.readers import KNOWN, Columns, Unreadable
from feedback_app.feedback.imports.recognition import Labels
from feedback_app.feedback.imports.services import import_execute, import_take_here
from feedback_app.feedback.models import ImportJob, ImportRefusal, Project
from feedback_app.web.errors import UserError
from feedback_app.web.text.plurals import number_of

SHOWN = 100


class Command(BaseCommand):
    help = "Imports examples, pairs or prompts from a JSONL, CSV or Parquet file."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", type=Path)
        parser.add_argument("--project", required=True)
        parser.add_argument("--by", help="e-mail of the labels' voter (default: an owner)")
        parser.add_argument("--dry-run", action="store_true", help="report only, write nothing")
        parser.add_argument(
            "--map",
            action="append",
            default=[],
            metavar="FIELD=COLUMN",
            help="read FIELD (prompt, completion, label, …) from COLUMN of the file; "
            "FIELD= ignores the file's own column",
        )
        for verdict in ("up", "down"):
            parser.add_argument(
                f"--{verdict}",
                action="append",
                default=[],
                metavar="LABEL",
                help=f"a label that means {verdict}",
            )
        parser.add_argument("--report", type=Path, help="write every refused row to this CSV file")

    def handle(self, *args: Any, **options: Any) -> None:
        project = Project.objects.filter(slug=options["project"]).first()
        if project is None:
            raise CommandError(f"There is no project {options['project']}.")
        by = self.person(project, options["by"])
        path: Path = options["file"].resolve()
        try:
            how = (columns_of(options["map"]), labels_of(options["up"], options["down"]))
            if options["dry_run"]:
                self.try_out(path, project, by, options["report"], *how)
            else:
                self.run(path, project, by, options["report"], *how)
        except (UserError, Unreadable) as error:
            raise CommandError(str(error)) from error

    def person(self, project: Project, email: str | None) -> User:
        members = User.objects.filter(is_active=True, memberships__project=project)
        if email:
            found = members.filter(email=email.lower()).first()
        else:
            found = members.filter(memberships__role=Role.OWNER).order_by("pk").first()
        if found is None:
            raise CommandError(f"{project.name} has no member {email or 'who owns it'}.")
        return found

    def run(
        self,
        path: Path,
        project: Project,
        by: User,
        report: Path | None,
        columns: Columns,
        labels: Labels,
    ) -> None:
        claim = import_take_here(project=project, path=path, by=by, columns=columns, labels=labels)
        if claim.row.offset:
            self.stdout.write(f"Continuing after row {claim.row.offset:,}.")
        import_execute(claim)
        job = ImportJob.objects.get(pk=claim.row.pk)
        self.tell(job.rows, job.imported, job.gold, job.prompts, job.duplicates, job.refused)
        refusals = job.refusals.order_by("pk")
        self.refusals(refusals.iterator(), job.refused, report)
        if job.status != ImportJob.Status.DONE:
            raise CommandError(f"{job.get_status_display()}. {job.error}".strip())

    def try_out(
        self,
        path: Path,
        project: Project,
        by: User,
        report: Path | None,
        columns: Columns,
        labels: Labels,
    ) -> None:
        """Write each chunk and roll it back, so duplicates between chunks are not detected."""
        counts: Counter[str] = Counter()
        shapes: set[str] = set()
        refusals: list[Refusal] = []
        with open_path(path) as file:
            records = open_rows(file, columns=columns).records()
            for chunk in in_chunks(records, labels=labels):
                written = chunk_try(chunk, project=project, by=by)
                counts.update(vars(written), rows=chunk.rows, refused=len(chunk.refusals))
                shapes |= chunk.shapes
                refusals += chunk.refusals[: 20_000 - len(refusals)]
        self.stdout.write(f"Nothing was written. Recognised: {', '.join(sorted(shapes)) or '–'}.")
        names = ("rows", "imported", "gold", "prompts", "duplicates", "refused")
        self.tell(*(counts[name] for name in names))
        self.refusals(refusals, counts["refused"], report)

    def tell(
        self, rows: int, imported: int, gold: int, prompts: int, duplicates: int, refused: int
    ) -> None:
        golden = f" ({gold:,} gold)" if gold else ""
        self.stdout.write(
            f"{number_of(rows, 'row')}: {number_of(imported, 'example')}{golden}, "
            f"{number_of(prompts, 'prompt')} without an answer, "
            f"{number_of(duplicates, 'duplicate')}, {refused:,} refused."
        )

    def refusals(
        self, found: Iterable[Refusal | ImportRefusal], count: int, report: Path | None
    ) -> None:
        """Print the first reasons; the report contains all of them."""
        lines = [csv_line(("row", "reason", "content"))] if report else []
        for index, refusal in enumerate(found):
            if index < SHOWN:
                self.stdout.write(f"row {refusal.number}: {refusal.reason}")
            if report:
                cells = (str(refusal.number), refusal.reason, refusal.excerpt)
                lines.append(csv_line(cells))
        if count > SHOWN:
            more = f"{report} has them" if report else "--report FILE writes them to a file"
            self.stdout.write(f"and {count - SHOWN:,} more: {more}.")
        if report:
            report.write_bytes(b"".join(lines))


def columns_of(pairs: Iterable[str]) -> dict[str, str]:
    """Return the mapping given as --map. Raise UserError."""
    parted = [pair.partition("=") for pair in pairs]
    columns = {ours: theirs for ours, _, theirs in parted}
    if (
        len(columns) < len(parted)
        or not columns.keys() <= KNOWN
        or not all(m for _, m, _ in parted)
    ):
        fields = ", ".join(sorted(KNOWN))
        raise UserError(f"--map takes FIELD=COLUMN; FIELD is one of {fields}, each at most once.")
    return columns
