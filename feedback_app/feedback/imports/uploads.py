"""Uploaded files until their import starts: stored, previewed, deleted."""

import datetime as dt
import json
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any

from django.core.files.uploadedfile import UploadedFile
from django.http import HttpRequest
from django.utils import timezone

from feedback_app.accounts.models import User
from feedback_app.feedback.imports.files import (
    FIRST_ROWS,
    copies_trim,
    file_place,
    file_push,
    file_remove,
    file_shown,
    tree_of,
)
from feedback_app.feedback.imports.mapping import columns_guess, survey
from feedback_app.feedback.imports.opening import is_parquet, open_path, open_rows
from feedback_app.feedback.imports.readers import (
    Columns,
    Record,
    Unreadable,
    cleaned,
)
from feedback_app.feedback.imports.recognition import Candidate, Labels, RowRefused, recognise
from feedback_app.feedback.imports.services import file_discard, job_labels
from feedback_app.feedback.models import ImportJob, Project
from feedback_app.web.bodies import content_length
from feedback_app.web.errors import UserError

UPLOAD_LIMIT = 2_000_000_000  # bytes
#: The most bytes that a form adds around its file.
FORM_BYTES = 100_000
PREVIEW_ROWS = 10
#: Hours until a file that was previewed but not imported is deleted.
PREVIEW_HOURS = 24


@dataclass(frozen=True)
class PreviewRow:
    """One row as recognised: its shape and candidates, or why it would be refused."""

    number: int
    shape: str = ""
    candidates: tuple[Candidate, ...] = ()
    reason: str = ""
    excerpt: str = ""


class TooLarge(UserError):
    """The file exceeds UPLOAD_LIMIT."""


def import_upload(*, project: Project, by: User, upload: "UploadedFile[Any]") -> ImportJob:
    """Store the file with a first guess at its columns. Raise UserError if it is unreadable."""
    previews_expire(project)
    size_check(upload.size or 0)
    path = upload_keep(upload.chunks(), every=True)
    try:
        name = cleaned(upload.name or "file")[:200]
        with open_path(path) as file:
            seen = survey(file)
        columns = {} if seen.product else columns_guess(seen.names)
        return ImportJob.objects.create(
            project=project, by=by, name=name, path=str(path), uploaded=True, columns=columns
        )
    except BaseException:
        file_remove(path)
        raise


def size_check(size: int) -> None:
    """Raise TooLarge for a size beyond the limit."""
    if size > UPLOAD_LIMIT:
        raise TooLarge("The file is larger than 2 GB. Use manage.py import_examples.")


def request_check(request: HttpRequest) -> None:
    """Raise TooLarge for a request that announces a file beyond the limit."""
    size_check(content_length(request) - FORM_BYTES)


def upload_keep(
    pieces: Iterable[bytes], *, columns: Columns | None = None, every: bool = False
) -> Path:
    """Store the pieces as a file if its first row is readable, and return its path.

    With `every`, any column names are accepted. Raise UserError or TooLarge, and delete the file.
    """
    copies_trim()
    path = file_place()
    try:
        with path.open("wb") as file:
            for piece in pieces:
                file.write(piece)
                size_check(file.tell())
        with path.open("rb") as file:
            next(open_rows(file, columns=columns, every=every).records(), None)
            if every and tree_of(path) is not None and is_parquet(file):
                first_rows_write(path.with_name(FIRST_ROWS), file)
        file_push(path)
    except BaseException as error:
        # also on a lost connection or a full disk, as nothing refers to the file yet
        file_remove(path)
        if isinstance(error, Unreadable):
            raise UserError(str(error)) from error
        raise
    return path


def first_rows_write(path: Path, file: IO[bytes]) -> None:
    """Write the rows of a Parquet file that pages show, for those of other hosts. Raise
    Unreadable."""
    with path.open("w", encoding="utf-8") as out:
        out.writelines(
            json.dumps(row, ensure_ascii=True) + "\n" for row in survey(file).rows if row
        )


def previews_expire(project: Project) -> None:
    """Delete files that were uploaded and never imported."""
    before = timezone.now() - dt.timedelta(hours=PREVIEW_HOURS)
    for job in project.import_jobs.filter(status=ImportJob.Status.PREVIEW, created_at__lt=before):
        file_discard(job)
        job.delete()


def preview(job: ImportJob) -> list[PreviewRow]:
    """Return the first rows. Raise Unreadable."""
    with file_shown(Path(job.path)) as file:
        rows = open_rows(file, columns=job.columns)
        labels = job_labels(job)
        return [preview_row(record, labels) for record in islice(rows.records(), PREVIEW_ROWS)]


def preview_row(record: Record, labels: Labels) -> PreviewRow:
    try:
        found = recognise(record, labels)
    except RowRefused as refused:
        return PreviewRow(record.number, reason=cleaned(str(refused)), excerpt=record.excerpt)
    return PreviewRow(record.number, found.shape, found.candidates)
