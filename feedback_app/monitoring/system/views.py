"""The System page, and its button that deletes what the rules allow."""

from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpResponseBase
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe
from django_htmx.http import HttpResponseStopPolling

from feedback_app.feedback.projects.services import may_create_projects
from feedback_app.monitoring.retention.rules import sentences
from feedback_app.monitoring.retention.services import cleanup_last, cleanup_request
from feedback_app.monitoring.system.measure import disk_measured
from feedback_app.monitoring.system.selectors import (
    engine_lines,
    may_operate,
    moment,
    process_lines,
    queue_lines,
)
from feedback_app.web.errors import UserError
from feedback_app.web.forms import NoFields, query_strict, validated
from feedback_app.web.htmx import HtmxHttpRequest
from feedback_app.web.responses import bad_request, error_response

REFUSED = "This page is for owners of a project and for superusers of this installation."


@require_safe
@never_cache
def system(request: HtmxHttpRequest) -> HttpResponseBase:
    """Show processes, queues, engines and the disk of the installation."""
    if not may_create_projects(request.user):
        raise PermissionDenied(REFUSED)
    try:
        query_strict(request, ())
    except UserError as error:
        return bad_request(request, str(error))
    if request.htmx:
        response = render(request, "monitoring/system.html#cleanup", disk_context(request))
        last = cleanup_last()
        if last is None or not last.active:
            response.status_code = HttpResponseStopPolling.status_code
        return response
    context = {
        "processes": process_lines(),
        "queues": queue_lines(),
        "engines": engine_lines(request.user),
        "rules": sentences(),
        **disk_context(request),
    }
    return render(request, "monitoring/system.html", context)


def disk_context(request: HtmxHttpRequest) -> dict[str, Any]:
    disk, cleanup = disk_measured(), cleanup_last()
    return {
        "disk": disk,
        "measured_at": moment(disk.at) if disk else None,
        "cleanup": cleanup,
        "cleaned_at": moment(cleanup.at) if cleanup else None,
        "may_operate": may_operate(request.user),
    }


@require_POST
def system_free(request: HtmxHttpRequest) -> HttpResponseBase:
    """Have a worker delete what the rules allow."""
    if not may_operate(request.user):
        raise PermissionDenied("Only people who own all projects can delete files of all projects.")
    try:
        validated(NoFields(request.POST))
        cleanup_request(by=request.user)
    except UserError as error:
        return error_response(request, str(error), back="system", status=error.status)
    messages.success(request, "A worker deletes the files within a minute.")
    return redirect("system")
