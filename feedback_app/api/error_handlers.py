"""Error handlers and URLs that the APIs share."""

from typing import Any

from django.contrib.auth.decorators import login_not_required
from django.core.exceptions import RequestDataTooBig
from django.db import InterfaceError, OperationalError
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.urls import URLPattern, URLResolver
from ninja import NinjaAPI
from ninja.errors import AuthenticationError, HttpError, ValidationError

from feedback_app.api import errors
from feedback_app.api.errors import ApiError
from feedback_app.feedback.votes.counts import RETRY_SECONDS
from feedback_app.serving.engine.client import EngineError
from feedback_app.web.errors import RateLimited, UserError
from feedback_app.web.responses import DATABASE_RETRY_SECONDS


def error_handlers_add(api: NinjaAPI) -> None:
    """Add handlers to `api` that return every error in one format."""

    @api.exception_handler(ApiError)
    def on_fault(request: HttpRequest, error: ApiError) -> HttpResponseBase:
        return errors.respond(request, error)

    @api.exception_handler(AuthenticationError)
    def on_no_token(request: HttpRequest, error: AuthenticationError) -> HttpResponseBase:
        return errors.respond(request, errors.unauthorised())

    @api.exception_handler(ValidationError)
    def on_invalid(request: HttpRequest, error: ValidationError) -> HttpResponseBase:
        return errors.respond(request, errors.of_validation(error.errors))

    @api.exception_handler(HttpError)
    def on_http_error(request: HttpRequest, error: HttpError) -> HttpResponseBase:
        """Handle Ninja's error for a body that is not JSON."""
        fault = ApiError(error.status_code, "The body must be a JSON object.", "invalid_json")
        return errors.respond(request, fault)

    @api.exception_handler(RequestDataTooBig)
    def on_too_big(request: HttpRequest, error: RequestDataTooBig) -> HttpResponseBase:
        fault = ApiError(413, "The body is too large.", "body_too_large")
        return errors.respond(request, fault)

    @api.exception_handler(UserError)
    def on_bad_request(request: HttpRequest, error: UserError) -> HttpResponseBase:
        return errors.respond(request, ApiError(400, str(error), "invalid_value"))

    @api.exception_handler(RateLimited)
    def on_too_many(request: HttpRequest, error: RateLimited) -> HttpResponseBase:
        """Handle one user of the product who votes too fast; other users are not affected."""
        fault = ApiError(
            429, str(error), "too_many_votes", "rate_limit_error", retry_after=RETRY_SECONDS
        )
        return errors.respond(request, fault)

    @api.exception_handler(OperationalError)
    @api.exception_handler(InterfaceError)
    def on_database_gone(
        request: HttpRequest, error: OperationalError | InterfaceError
    ) -> HttpResponseBase:
        fault = ApiError(
            503,
            "The database is not available right now. Nothing of this request was saved: send it "
            "again.",
            "database_unavailable",
            "server_error",
            retry_after=DATABASE_RETRY_SECONDS,
        )
        return errors.respond(request, fault)

    @api.exception_handler(EngineError)
    def on_engine_error(request: HttpRequest, error: EngineError) -> HttpResponseBase:
        return errors.respond(request, errors.of_engine(error))


def token_urls(api: NinjaAPI) -> tuple[list[URLResolver | URLPattern], Any, Any]:
    """Return the API's URLs for include(). A token replaces the sign-in."""
    patterns, app, namespace = api.urls
    for pattern in patterns:
        if pattern.callback is not None:
            login_not_required(pattern.callback)
    return patterns, app, namespace
