"""One id a request: in every log line about it, in its answer, and in what the engine is asked."""

import re
import uuid
from collections.abc import Callable

import structlog
from django.http import HttpRequest, HttpResponseBase

HEADER = "X-Request-ID"
#: What is taken over from outside: it ends up in log lines and headers.
PLAIN = re.compile(r"[A-Za-z0-9._-]{1,64}")


def request_ids(
    get_response: Callable[[HttpRequest], HttpResponseBase],
) -> Callable[[HttpRequest], HttpResponseBase]:
    """Middleware: takes the id that a proxy or a program gave, or gives one."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        given = request.headers.get(HEADER, "")
        request_id = given if PLAIN.fullmatch(given) else uuid.uuid4().hex
        # bound until this thread's next request: a stream is written after this function is done
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        response = get_response(request)
        response.headers[HEADER] = request_id
        return response

    return middleware
