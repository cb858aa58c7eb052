"""Request ids: in every log line of a request, in its response and in requests to the engine."""

import re
import uuid
from collections.abc import Callable

import structlog
from django.http import HttpRequest, HttpResponseBase

HEADER = "X-Request-ID"
#: Accepted ids of clients: they are written to logs and headers.
PLAIN = re.compile(r"[A-Za-z0-9._-]{1,64}")


def request_ids(
    get_response: Callable[[HttpRequest], HttpResponseBase],
) -> Callable[[HttpRequest], HttpResponseBase]:
    """Middleware that uses the id of a proxy or client, or creates one."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        given = request.headers.get(HEADER, "")
        request_id = given if PLAIN.fullmatch(given) else uuid.uuid4().hex
        # bound until this thread's next request: a stream is sent after this function has returned
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        response = get_response(request)
        response.headers[HEADER] = request_id
        return response

    return middleware
