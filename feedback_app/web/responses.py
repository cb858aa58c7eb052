"""How deeds answer: a refusal is told in the page, a success as a toast."""

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods
from django_htmx.http import trigger_client_event

from feedback_app.web.errors import RateLimited, UserError
from feedback_app.web.htmx import HtmxHttpRequest

P = ParamSpec("P")
#: The object that a view is about, as `project_view` or `shared_view` looked it up.
T = TypeVar("T")
ObjectView = Callable[Concatenate[HtmxHttpRequest, T, P], HttpResponseBase]


def toast(
    response: HttpResponse, text: str, *, level: str = "info", undo: str = ""
) -> HttpResponse:
    """Has the page show `text`, with a button that posts to `undo` if that is given."""
    return trigger_client_event(response, "toast", {"text": text, "level": level, "undo": undo})


def error_response(
    request: HtmxHttpRequest, why: str, *, back: str | None = None, status: int = 422
) -> HttpResponse:
    """Says why nothing was done: htmx gets a toast, a plain form goes back or to a 400 page."""
    if request.htmx:
        if status == RateLimited.status and request.htmx.target == "stage":
            # the desk keeps the verdict and says so where it stays to be seen
            return HttpResponse(why, status=status)
        return toast(HttpResponse(why, status=status), why, level="error")
    if back is not None:
        messages.error(request, why)
        return redirect(back)
    return bad_request(request, why, status=400 if status == 422 else status)


def bad_request(request: HttpRequest, why: str, *, status: int = 400) -> HttpResponse:
    """The 400 page with the reason."""
    return render(request, "400.html", {"message": why}, status=status)


def action_view(view: ObjectView[T, P]) -> ObjectView[T, P]:
    """For views that change something: POST only, UserError is told."""

    @require_http_methods(["POST"])
    @wraps(view)
    def told(
        request: HtmxHttpRequest, subject: T, /, *args: P.args, **kwargs: P.kwargs
    ) -> HttpResponseBase:
        try:
            return view(request, subject, *args, **kwargs)
        except UserError as error:
            return error_response(request, str(error), status=error.status)

    return told


def page(view: ObjectView[T, P]) -> ObjectView[T, P]:
    """For views that only show something: GET only, bad parameters are told."""

    @require_http_methods(["GET", "HEAD"])
    @wraps(view)
    def told(
        request: HtmxHttpRequest, subject: T, /, *args: P.args, **kwargs: P.kwargs
    ) -> HttpResponseBase:
        try:
            return view(request, subject, *args, **kwargs)
        except UserError as error:
            return bad_request(request, str(error))

    return told
