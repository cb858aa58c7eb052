"""Bringing a file in: upload, preview, start, progress, report."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.contrib import messages
from django.http import HttpResponseBase, StreamingHttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django_htmx.http import HttpResponseStopPolling

from feedback_app.accounts.models import Role
from feedback_app.feedback.access import project_view
from feedback_app.feedback.exports.rows import csv_line
from feedback_app.feedback.imports.forms import ColumnsForm, UploadForm
from feedback_app.feedback.imports.mapping import FIELDS, chosen_for, missing, survey
from feedback_app.feedback.imports.readers import Unreadable
from feedback_app.feedback.imports.services import (
    import_cancel,
    import_map,
    import_start,
    job_labels,
)
from feedback_app.feedback.imports.uploads import import_upload, preview
from feedback_app.feedback.models import ImportJob, Project
from feedback_app.web.errors import UserError
from feedback_app.web.forms import NoFields, validated
from feedback_app.web.htmx import HtmxHttpRequest
from feedback_app.web.responses import action_view, error_response, page

JOBS_SHOWN = 20
REFUSALS_SHOWN = 20
#: Columns of a file in the table beside the form; the form has them all.
COLUMNS_SHOWN = 50


@project_view(Role.ADMIN)
def imports(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    """What can be imported, and what was."""
    return upload(request, project) if request.method == "POST" else overview(request, project)


@page
def overview(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    return render(request, "feedback/imports.html", overview_context(project))


def overview_context(project: Project) -> dict[str, Any]:
    jobs = project.import_jobs.select_related("by").order_by("-pk")[:JOBS_SHOWN]
    return {"project": project, "jobs": jobs}


@action_view
def upload(request: HtmxHttpRequest, project: Project) -> HttpResponseBase:
    """Keeps the file and shows how it is understood; a file of no use is told beside the form."""
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
    """The preview, then the progress, then the report. Polling ends with the import."""
    job = job_of(project, pk)
    context: dict[str, Any] = {"project": project, "job": job}
    if job.status == ImportJob.Status.PREVIEW:
        context |= looked(job)
    elif not job.active:
        context["refusals"] = job.refusals.order_by("pk")[:REFUSALS_SHOWN]
    template = "feedback/import_job.html"
    response = render(request, f"{template}#import-status" if request.htmx else template, context)
    if request.htmx and not job.active:
        response.status_code = HttpResponseStopPolling.status_code
    return response


def looked(job: ImportJob) -> dict[str, Any]:
    """What is in a file that has not been started, and how it is understood."""
    try:
        seen = survey(Path(job.path))
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
    }
    try:
        context["rows"] = preview(job)
    except Unreadable as error:
        context["lacks"] = context["lacks"] or str(error)
    else:
        context["none"] = not any(row.candidates for row in context["rows"])
    return context


def columns_take(request: HtmxHttpRequest, job: ImportJob) -> None:
    """Keeps what the form says of a file's columns. Raises UserError."""
    try:
        form = ColumnsForm(request.POST, job=job, names=survey(Path(job.path)).names)
    except Unreadable as error:
        raise UserError(str(error)) from error
    validated(form)
    import_map(job=job, columns=form.columns(), labels=form.labels())


@project_view(Role.ADMIN)
@action_view
def import_job_columns(request: HtmxHttpRequest, project: Project, pk: int) -> HttpResponseBase:
    """Another choice of columns, and how the first rows are understood with it."""
    job = job_of(project, pk)
    columns_take(request, job)
    if not request.htmx:
        return redirect("import-job", project.slug, pk)
    context = {"project": project, "job": job, **looked(job)}
    return render(request, "feedback/import_job.html#import-preview", context)


@project_view(Role.ADMIN)
@action_view
def import_job_start(request: HtmxHttpRequest, project: Project, pk: int) -> HttpResponseBase:
    """Has a worker import the file that was looked at, as the form says or as it was left."""
    job = job_of(project, pk)
    if set(request.POST) - {"csrfmiddlewaretoken"}:
        columns_take(request, job)
    if job.status == ImportJob.Status.PREVIEW and (lacks := looked(job).get("lacks")):
        return error_response(request, lacks, back=reverse("import-job", args=[project.slug, pk]))
    import_start(job=job, by=request.user)
    return redirect("import-job", project.slug, pk)


@project_view(Role.ADMIN)
@action_view
def import_job_stop(request: HtmxHttpRequest, project: Project, pk: int) -> HttpResponseBase:
    """Throws the file away; what has been imported stays."""
    validated(NoFields(request.POST))
    import_cancel(job=job_of(project, pk), by=request.user)
    messages.success(request, "Stopped. What was imported before stays.")
    return redirect("import-job", project.slug, pk)


@project_view(Role.ADMIN)
@page
def import_refusals(request: HtmxHttpRequest, project: Project, pk: int) -> HttpResponseBase:
    """The refused rows with their reasons, as a CSV file that runs no formula."""
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
