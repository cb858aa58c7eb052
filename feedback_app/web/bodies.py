"""Middleware that refuses large request bodies before anything reads them.

The CSRF check reads the body of every form, also of anonymous clients, and writes its files to
disk. Only the views named here accept more than settings.DATA_UPLOAD_MAX_MEMORY_SIZE.
"""

from collections.abc import Callable
from typing import cast

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseBase

from feedback_app.web.htmx import HtmxHttpRequest
from feedback_app.web.responses import error_response

#: These check first who sends the body, then its size against their own limit.
OWN_LIMIT = {"imports", "adapter-import"}
#: The APIs require a token first, and report every error as JSON.
APIS = {"gateway", "data-api"}


def content_length(request: HttpRequest) -> int:
    """Return the length that the request announces; 0 if it announces none."""
    return int(request.META.get("CONTENT_LENGTH") or 0)


class BodyLimit:
    """Refuses bodies that are too large, and those that do not announce their length."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        return self.get_response(request)

    def process_view(
        self, request: HttpRequest, view: object, args: object, kwargs: object
    ) -> HttpResponse | None:
        found = request.resolver_match
        assert found is not None  # noqa: S101 - for the type checker: the view is resolved
        if found.view_name in OWN_LIMIT or APIS & set(found.namespaces):
            return None
        page_request = cast("HtmxHttpRequest", request)
        if "Transfer-Encoding" in request.headers:
            why = "Send the request with a Content-Length. Nothing was changed."
            return error_response(page_request, why, status=411)
        limit = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
        if content_length(request) > limit:
            why = f"A request has at most {limit / 1e6:.0f} MB. Nothing was changed."
            return error_response(page_request, why, status=413)
        return None
