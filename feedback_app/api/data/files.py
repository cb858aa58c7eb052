"""The data API's operations on files: imports and exports."""

from collections.abc import Iterator
from typing import Any

from django.http import HttpResponse, HttpResponseBase
from ninja import Path, Query, Router
from pydantic import BaseModel

from feedback_app.accounts.audit import audit
from feedback_app.accounts.models import ApiToken
from feedback_app.api.auth import ApiRequest
from feedback_app.api.data import schemas as s
from feedback_app.api.data.auth import FAULTS, HERE, READ, WRITE, project_of
from feedback_app.api.data.idempotency import once
from feedback_app.api.data.pagination import page_of
from feedback_app.api.data.services import unknown
from feedback_app.api.data.uploads import file_store
from feedback_app.api.errors import ApiError, unauthorised
from feedback_app.feedback.exports.downloads import download_of, export_target
from feedback_app.feedback.exports.rows import CHUNK, CONTENT_TYPES, ExportRow, project_rows
from feedback_app.feedback.imports.files import file_remove
from feedback_app.feedback.imports.mapping import labels_of
from feedback_app.feedback.imports.readers import KNOWN
from feedback_app.feedback.imports.services import ImportConflict, import_cancel, import_start
from feedback_app.feedback.imports.uploads import previews_expire
from feedback_app.feedback.models import ImportJob, Project
from feedback_app.training.snapshots.rows import snapshot_rows

router = Router()
BYTES = {"schema": {"type": "string", "format": "binary"}}
FORM = {"schema": {"type": "object", "properties": {"file": BYTES["schema"]}, "required": ["file"]}}
A_FILE = {
    "required": True,
    "content": {"application/octet-stream": BYTES, "multipart/form-data": FORM},
}
DOWNLOAD = {
    200: {"description": "The file", "content": dict.fromkeys(CONTENT_TYPES.values(), BYTES)}
}


# -- imports


def job_of(project: Project, pk: int) -> ImportJob:
    """Return an import. Raises ApiError 404."""
    job = project.import_jobs.filter(pk=pk).first()
    if job is None:
        raise unknown("pk", f"import {pk}")
    return job


def import_out(job: ImportJob) -> s.ImportOut:
    return s.ImportOut.model_validate(job, from_attributes=True)


def wrong_moment(error: ImportConflict) -> ApiError:
    return ApiError(409, str(error), "wrong_moment")


@router.get(f"{HERE}/imports", response={200: s.Page[s.ImportOut], **FAULTS}, auth=READ)
def imports(request: ApiRequest, slug: str, query: Query[s.PageQuery]) -> Any:
    """List all imports, oldest first, also those started by people."""
    project = project_of(request, slug, s.PageQuery)
    rows, after = page_of(project.import_jobs.all(), "imports", query)
    return {"data": [import_out(row) for row in rows], "next_cursor": after}


@router.post(
    f"{HERE}/imports",
    response={200: s.ImportOut, **FAULTS},
    auth=WRITE,
    openapi_extra={"requestBody": A_FILE},
)
def imports_new(request: ApiRequest, slug: str, ask: Query[s.ImportAsk]) -> HttpResponse:
    """Import the file that is the body, or the part `file` of a form: JSONL, CSV or Parquet, up
    to 2 GB. A worker imports it; its labels become votes of the token. One import at a time."""
    project = project_of(request, slug, s.ImportAsk)
    columns, labels = columns_of(ask), labels_of(ask.up, ask.down)
    previews_expire(project)
    kept = file_store(request, columns=columns)
    taken = False

    def action() -> BaseModel:
        nonlocal taken
        by = request.auth.user
        job = ImportJob.objects.create(
            project=project,
            by=by,
            name=(ask.name or kept.name or "file")[:200],
            path=str(kept.path),
            uploaded=True,
            dry_run=ask.dry_run,
            columns=columns,
            labels_up=sorted(labels.up),
            labels_down=sorted(labels.down),
        )
        import_start(job=job, by=by)
        job.refresh_from_db()
        taken = True
        return import_out(job)

    try:
        return once(request, action, asked=f"{ask.model_dump_json()} {kept.name} {kept.digest}")
    except ImportConflict as error:
        raise wrong_moment(error) from error
    except BaseException:
        taken = False  # a commit that fails rolls the import back
        raise
    finally:
        if not taken:
            file_remove(kept.path)


def columns_of(ask: s.ImportAsk) -> dict[str, str]:
    """Return the column names sent as `map`. Raises ApiError for unknown or repeated columns."""
    pairs = [each.partition(":") for each in ask.map]
    columns = {ours: theirs for ours, _, theirs in pairs}
    if len(columns) < len(pairs) or not columns.keys() <= KNOWN or not all(p[1] for p in pairs):
        raise ApiError(
            400,
            f"map: send ours:theirs; ours is one of {', '.join(sorted(KNOWN))}, each once at most.",
            "invalid_value",
            param="map",
        )
    return columns


@router.get(f"{HERE}/imports/{{pk}}", response={200: s.ImportOut, **FAULTS}, auth=READ)
def import_one(request: ApiRequest, slug: str, pk: Path[s.PathId]) -> Any:
    """Get the progress and the result of an import."""
    return import_out(job_of(project_of(request, slug), pk))


@router.get(
    f"{HERE}/imports/{{pk}}/refused", response={200: s.Page[s.RefusedOut], **FAULTS}, auth=READ
)
def import_refused(
    request: ApiRequest, slug: str, pk: Path[s.PathId], query: Query[s.PageQuery]
) -> Any:
    """List the rows that were not imported and why, in order; the first 20,000."""
    job = job_of(project_of(request, slug, s.PageQuery), pk)
    rows, after = page_of(job.refusals.all(), f"refused-{pk}", query)
    return {
        "data": [{"row": r.number, "reason": r.reason, "content": r.excerpt} for r in rows],
        "next_cursor": after,
    }


@router.post(f"{HERE}/imports/{{pk}}/stop", response={200: s.ImportOut, **FAULTS}, auth=WRITE)
def import_stop(request: ApiRequest, slug: str, pk: Path[s.PathId]) -> Any:
    """Stop an import after the rows that it is writing; imported rows stay."""
    job = job_of(project_of(request, slug), pk)
    try:
        import_cancel(job=job, by=request.auth.user)
    except ImportConflict as error:
        raise wrong_moment(error) from error
    job.refresh_from_db()
    return import_out(job)


# -- exports


@router.get(
    f"{HERE}/export",
    response={200: None, **FAULTS},
    auth=READ,
    openapi_extra={"responses": DOWNLOAD},
)
def export(request: ApiRequest, slug: str, query: Query[s.ExportQuery]) -> HttpResponseBase:
    """Export all examples, or the snapshot of a run, as a file; with the current votes if
    requested. The stream is aborted if the token is revoked."""
    project = project_of(request, slug, s.ExportQuery)
    what = "examples" if query.snapshot is None else f"run-{query.snapshot}"
    rows = rows_of(project, query)
    audit(
        project=project,
        actor=request.auth.user,
        action="examples.export",
        target=export_target(query.format, votes=query.votes),
        reason="" if query.snapshot is None else what,
    )
    return download_of(
        while_valid(rows, request.auth),
        name=f"{project.slug}-{what}",
        as_format=query.format,
        votes=query.votes,
    )


def rows_of(project: Project, query: s.ExportQuery) -> Iterator[ExportRow]:
    """Return the rows of the export. Raises ApiError for an unknown run, and for one that waits for
    its snapshot."""
    if query.snapshot is None:
        return project_rows(project, votes=query.votes)
    run = project.runs.filter(number=query.snapshot).select_related("snapshot").first()
    if run is None:
        raise unknown("snapshot", f"run {query.snapshot}")
    if not run.snapshot.taken:
        raise ApiError(409, f"{run} has no snapshot yet: a worker takes it.", "wrong_moment")
    return snapshot_rows(run.snapshot, votes=query.votes)


def while_valid(rows: Iterator[ExportRow], token: ApiToken) -> Iterator[ExportRow]:
    """Yield the rows; raise once the token is revoked, so that no file looks complete."""
    for number, row in enumerate(rows, start=1):
        if number % CHUNK == 0 and not ApiToken.objects.valid().filter(pk=token.pk).exists():
            raise unauthorised()
        yield row
