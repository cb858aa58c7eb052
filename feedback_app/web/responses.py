"""Responses of pages and actions: errors in the page, successes as toasts."""

import sys
from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

from django.contrib import messages
from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect, render
from django.template.loader import render_to_string
from django.views import defaults
from django.views.decorators.http import require_http_methods
from django_htmx.http import trigger_client_event

from feedback_app.web.errors import RateLimited, UserError
from feedback_app.web.htmx import HtmxHttpRequest

P = ParamSpec("P")
#: What the database raises while it is locked for too long, restarts, or cannot be reached.
DATABASE_GONE = (OperationalError, InterfaceError)
DATABASE_RETRY_SECONDS = 5
#: The object that `project_view` or `shared_view` passes to the view.
T = TypeVar("T")
ObjectView = Callable[Concatenate[HtmxHttpRequest, T, P], HttpResponseBase]


def toast(
    response: HttpResponse,
    text: str,
    *,
    level: str = "info",
    undo: str = "",
    change: dict[str, str] | None = None,
) -> HttpResponse:
    """Make the page show `text`.

    `undo`: where an Undo button posts to. `change`: the `url`, `verdict` and `label` of a button
    that changes a vote.
    """
    shown = {"text": text, "level": level, "undo": undo}
    return trigger_client_event(response, "toast", shown | ({"change": change} if change else {}))


def error_response(
    request: HtmxHttpRequest, why: str, *, back: str | None = None, status: int = 422
) -> HttpResponse:
    """Report an error: htmx gets a toast; a plain form is redirected or gets the 400 page."""
    if request.htmx:
        if status == RateLimited.status and request.htmx.target == "stage":
            # the annotation page keeps the verdict and shows a permanent message
            return HttpResponse(why, status=status)
        return toast(HttpResponse(why, status=status), why, level="error")
    if back is not None:
        messages.error(request, why)
        return redirect(back)
    return bad_request(request, why, status=400 if status == 422 else status)


def bad_request(request: HttpRequest, why: str, *, status: int = 400) -> HttpResponse:
    """Return the 400 page with the message."""
    return render(request, "400.html", {"message": why}, status=status)


def action_view(view: ObjectView[T, P]) -> ObjectView[T, P]:
    """Decorate a view that changes something: POST only, a UserError is reported."""

    @require_http_methods(["POST"])
    @wraps(view)
    def wrapped(
        request: HtmxHttpRequest, subject: T, /, *args: P.args, **kwargs: P.kwargs
    ) -> HttpResponseBase:
        try:
            return view(request, subject, *args, **kwargs)
        except UserError as error:
            return error_response(request, str(error), status=error.status)

    return wrapped


def page(view: ObjectView[T, P]) -> ObjectView[T, P]:
    """Decorate a view that only reads: GET only, invalid parameters are a 400."""

    @require_http_methods(["GET", "HEAD"])
    @wraps(view)
    def wrapped(
        request: HtmxHttpRequest, subject: T, /, *args: P.args, **kwargs: P.kwargs
    ) -> HttpResponseBase:
        try:
            return view(request, subject, *args, **kwargs)
        except UserError as error:
            return bad_request(request, str(error))

    return wrapped


def permission_denied(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer a request that a person may not make with the 403 page; htmx, where it would change
    something, gets a toast. By that the annotation page tells it from an expired CSRF token."""
    if request.headers.get("HX-Request") and request.method not in ("GET", "HEAD", "OPTIONS"):
        why = str(exception) or "Your role does not include it. Ask an owner of the project."
        return toast(HttpResponse(why, status=403), why, level="error")
    return defaults.permission_denied(request, exception)


def server_error(request: HttpRequest) -> HttpResponse:
    """Answer an unexpected error: with 503 while the database is not available, else with 500.

    The pages ask neither the database nor the session, which may be the reason.
    """
    if isinstance(sys.exc_info()[1], DATABASE_GONE):
        response = HttpResponse(render_to_string("503.html"), status=503)
        response["Retry-After"] = str(DATABASE_RETRY_SECONDS)
        return response
    return HttpResponse(render_to_string("500.html"), status=500)
