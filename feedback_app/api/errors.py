"""Errors of the APIs, in the format that OpenAI's clients read."""

from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest, JsonResponse
from django.http.response import HttpResponseBase

from feedback_app.accounts.models import ApiToken
from feedback_app.serving.engine.client import EngineError

#: How the names of fields for ids end.
IDS = ("pk", "_id")
RETRY_SECONDS = 5  # for temporary errors: an engine that restarts, a full queue


@dataclass
class ApiError(Exception):
    """An error for the caller. `param` names the field that caused it."""

    status: int
    message: str
    code: str
    type: str = "invalid_request_error"
    param: str | None = None
    retry_after: int | None = None

    def body(self) -> dict[str, Any]:
        return {
            "error": {
                "message": self.message,
                "type": self.type,
                "param": self.param,
                "code": self.code,
            }
        }


def unauthorised() -> ApiError:
    """Return the same error for every invalid token, revoked or unknown."""
    return ApiError(
        401,
        "Send a valid API token of a project as 'Authorization: Bearer …'.",
        "invalid_api_key",
    )


def expired(token: ApiToken) -> ApiError:
    """Return the error for a token whose date has passed."""
    return ApiError(
        401,
        f"This API token expired at {token.expires_at:%Y-%m-%d %H:%M} UTC. "
        "An admin of the project can create another one.",
        "expired_api_key",
    )


def of_engine(error: EngineError) -> ApiError:
    """Return the API error of an engine error."""
    if error.status == 400:
        return ApiError(400, str(error), "invalid_request", param="messages")
    if error.status == 429:
        return ApiError(
            429, str(error), "engine_busy", "rate_limit_error", retry_after=RETRY_SECONDS
        )
    return ApiError(
        503, str(error), "engine_unavailable", "server_error", retry_after=RETRY_SECONDS
    )


def of_validation(faults: list[dict[str, Any]]) -> ApiError:
    """Return one error for all validation errors; `param` is the first one's field.

    An id that no column can hold is an unknown one: 404.
    """
    named = [(field_of(fault["loc"]), fault["msg"]) for fault in faults]
    for fault, (field, _) in zip(faults, named, strict=True):
        if fault["loc"][0] != "query" and fault["type"] == "less_than" and field.endswith(IDS):
            return ApiError(404, f"{field}: this project has none.", "not_found", param=field)
    message = "; ".join(f"{field}: {why}" if field else why for field, why in named)
    codes = {"missing": "missing_required_parameter", "extra_forbidden": "unknown_parameter"}
    code = codes.get(faults[0]["type"], "invalid_value")
    return ApiError(400, message, code, param=named[0][0] or None)


def field_of(location: tuple[str | int, ...]) -> str:
    """Return 'messages[0].content' for ('body', 'ask', 'messages', 0, 'content'), and 'limit' for
    ('query', 'limit').

    For a union pydantic also names the type, 'constrained-int', which is left out.
    """
    field = ""
    for part in location[2 if location[0] == "body" else 1 :]:
        if str(part).startswith("constrained-"):
            continue
        field += f"[{part}]" if isinstance(part, int) else f".{part}"
    return field.removeprefix(".")


def respond(request: HttpRequest, fault: ApiError) -> HttpResponseBase:
    response = JsonResponse(fault.body(), status=fault.status)
    if fault.status == 401:
        response["WWW-Authenticate"] = "Bearer"
    if fault.retry_after is not None:
        response["Retry-After"] = str(fault.retry_after)
    return response
