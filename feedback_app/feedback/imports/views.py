"""Importing a file: upload, preview, start, progress, report."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.contrib import messages
from django.http import HttpResponseBase, StreamingHttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.csrf import csrf_exempt, csrf_protect
from django_htmx.http import HttpResponseStopPolling

from feedback_app.accounts.models import Role
from feedback_app.feedback.access import project_view
from feedback_app.feedback.exports.rows import csv_line
from feedback_app.feedback.imports.files import file_shown
from feedback_app.feedback.imports.forms import ColumnsForm, UploadForm
from feedback_app.feedback.imports.mapping import (
    FIELDS,
    chosen_for,
    columns_of,
    missing,
    survey,
)
from feedback_app.feedback.imports.readers import Unreadable
from feedback_app.feedback.imports.services import (
    copy_discard,
    import_cancel,
    import_discard,
    import_map,
    import_start,
    job_labels,
)
from feedback_app.feedback.imports.uploads import TooLarge, import_upload, preview, request_check
from feedback_app.feedback.models import ImportJob, Project
from feedback_app.web.errors import UserError
from feedback_app.web.forms import NoFields, validated
from feedback_app.web.htmx import HtmxHttpRequest
from feedback_app.web.responses import action_view, error_response, page

JOBS_SHOWN = 20
REFUSALS_SHOWN = 20
#: Columns in the preview table; the form lists all of them.
COLUMNS_SHOWN = 50


@csrf_exempt  # `upload` checks it: the check reads the body, so role and size come first
@project_view(Role.ADMIN)
def imports(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    """Show the importable formats and earlier imports."""
    if request.method != "POST":
        return overview(request, project)
    try:
        request_check(request)
    except TooLarge as error:
        return error_response(request, str(error), status=413)
    return upload(request, project)


@page
def overview(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    return render(request, "feedback/imports.html", overview_context(project))


def overview_context(project: Project) -> dict[str, Any]:
    jobs = project.import_jobs.select_related("by").order_by("-pk")[:JOBS_SHOWN]
    return {"project": project, "jobs": jobs}


@csrf_protect
@action_view
def upload(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    """Store the file and show its preview, or the reason why it is unusable."""
    try:
        file = validated(UploadForm(request.POST, request.FILES))["file"]
        job = import_upload(project=project, by=request.user, upload=file)
    except UserError as error:
        context = overview_context(project) | {"fault": str(error)}
        return render(request, "feedback/imports.html", context, status=400)
    return redirect("import-job", project.slug, job.pk)


def job_of(project: Project, pk: int) -> ImportJob:
    return get_object_or_404(project.import_jobs.select_related("by"), pk=pk)


@project_view(Role.ADMIN)
@page
def import_job(request: HtmxHttpRequest, project: Project, pk: int) -> HttpResponseBase:
    """Show the preview, then the progress, then the report. Polling ends with the import."""
    job = job_of(project, pk)
    context: dict[str, Any] = {"project": project, "job": job}
    if job.status == ImportJob.Status.PREVIEW:
        context |= preview_context(job)
    elif not job.active:
        copy_discard(job)
        context["refusals"] = job.refusals.order_by("pk")[:REFUSALS_SHOWN]
    template = "feedback/import_job.html"
    response = render(request, f"{template}#import-status" if request.htmx else template, context)
    if request.htmx and not job.active:
        response.status_code = HttpResponseStopPolling.status_code
    return response


def preview_context(job: ImportJob) -> dict[str, Any]:
    """Return the content of a file that has not been started, as recognised."""
    try:
        with file_shown(Path(job.path)) as file:
            seen = survey(file)
    except Unreadable as error:
        return {"fault": str(error)}
    names = seen.names
    chosen = {field: chosen_for(field, columns=job.columns, names=names) for field in FIELDS}
    columns = [
        (column, [field for field, theirs in chosen.items() if theirs == column.name])
        for column in seen.columns
    ]
    shown = [each for n, each in enumerate(columns) if n < COLUMNS_SHOWN or each[1]]
    context: dict[str, Any] = {
        "form": ColumnsForm(job=job, names=names),
        "columns": shown,
        "more": len(columns) - len(shown),
        "values": seen.labels(chosen["label"], job_labels(job)) if chosen["label"] else [],
        "lacks": missing({field for field, theirs in chosen.items() if theirs in names}),
        "product": "" if job.columns else seen.product,
    }
    if context["product"]:
        context["lacks"] = ""
    try:
        context["rows"] = preview(job)
    except Unreadable as error:
        context["lacks"] = context["lacks"] or str(error)
    else:
        context["none"] = not any(row.candidates for row in context["rows"])
    return context


def columns_take(request: HtmxHttpRequest, job: ImportJob) -> None:
    """Store the form's columns. Raise UserError."""
    try:
        with file_shown(Path(job.path)) as file:
            seen = survey(file)
    except Unreadable as error:
        raise UserError(str(error)) from error
    form = ColumnsForm(request.POST, job=job, names=seen.names)
    validated(form)
    columns = form.columns()
    if seen.product and columns == columns_of(form.initial, seen.names):
        columns = job.columns  # nothing was chosen: the export is read as what it is
    import_map(job=job, columns=columns, labels=form.labels())


@project_view(Role.ADMIN)
@action_view
def import_job_columns(request: HtmxHttpRequest, project: Project, pk: int) -> HttpResponseBase:
    """Change the columns and show the preview again."""
    job = job_of(project, pk)
    columns_take(request, job)
    if not request.htmx:
        return redirect("import-job", project.slug, pk)
    context = {"project": project, "job": job, **preview_context(job)}
    return render(request, "feedback/import_job.html#import-preview", context)


@project_view(Role.ADMIN)
@action_view
def import_job_start(request: HtmxHttpRequest, project: Project, pk: int) -> HttpResponseBase:
    """Queue the previewed file, with the form's columns or the stored ones."""
    job = job_of(project, pk)
    if set(request.POST) - {"csrfmiddlewaretoken"}:
        columns_take(request, job)
    if job.status == ImportJob.Status.PREVIEW and (lacks := preview_context(job).get("lacks")):
        return error_response(request, lacks, back=reverse("import-job", args=[project.slug, pk]))
    import_start(job=job, by=request.user)
    return redirect("import-job", project.slug, pk)


@project_view(Role.ADMIN, archived=True)
@action_view
def import_job_stop(request: HtmxHttpRequest, project: Project, pk: int) -> HttpResponseBase:
    """Discard a file that was not started, or stop its import; imported rows stay."""
    validated(NoFields(request.POST))
    job = job_of(project, pk)
    if import_discard(job=job, by=request.user):
        messages.success(request, "The file was discarded. Nothing was imported.")
        return redirect("imports", project.slug)
    import_cancel(job=job, by=request.user)
    messages.success(request, "Stopped. Rows that were imported before stay.")
    return redirect("import-job", project.slug, pk)


@project_view(Role.ADMIN)
@page
def import_refusals(request: HtmxHttpRequest, project: Project, pk: int) -> HttpResponseBase:
    """Return the refused rows with their reasons as CSV, with formulas escaped."""
    job = job_of(project, pk)
    return StreamingHttpResponse(
        refusal_lines(job),
        content_type="text/csv; charset=utf-8",
        headers={
            "Content-Disposition": f'attachment; filename="{project.slug}-import-{pk}-refused.csv"'
        },
    )


def refusal_lines(job: ImportJob) -> Iterator[bytes]:
    yield csv_line(("row", "reason", "content"))
    for refusal in job.refusals.order_by("pk").iterator(chunk_size=500):
        yield csv_line((str(refusal.number), refusal.reason, refusal.excerpt))
