"""Errors of the gateway, in the shape that OpenAI's clients read."""

from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest, JsonResponse
from django.http.response import HttpResponseBase

from feedback_app.serving.engine.client import EngineError

RETRY_SECONDS = 5  # for what passes by itself: an engine that restarts, a queue that is full


@dataclass
class ApiFault(Exception):
    """Something the caller can do something about. `param` names the field that is to blame."""

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


def unauthorised() -> ApiFault:
    """One answer to every wrong token: nothing tells a revoked one from a made-up one."""
    return ApiFault(
        401,
        "Send a valid API token of a project as 'Authorization: Bearer …'.",
        "invalid_api_key",
    )


def of_engine(error: EngineError) -> ApiFault:
    """What an engine's refusal means to a program that knows no engines."""
    if error.status == 400:
        return ApiFault(400, str(error), "invalid_request", param="messages")
    if error.status == 429:
        return ApiFault(
            429, str(error), "engine_busy", "rate_limit_error", retry_after=RETRY_SECONDS
        )
    return ApiFault(
        503, str(error), "engine_unavailable", "server_error", retry_after=RETRY_SECONDS
    )


def of_validation(faults: list[dict[str, Any]]) -> ApiFault:
    """All faults of a body in one sentence each; the first one's field is the param."""
    named = [(field_of(fault["loc"]), fault["msg"]) for fault in faults]
    message = "; ".join(f"{field}: {why}" if field else why for field, why in named)
    codes = {"missing": "missing_required_parameter", "extra_forbidden": "unknown_parameter"}
    code = codes.get(faults[0]["type"], "invalid_value")
    return ApiFault(400, message, code, param=named[0][0] or None)


def field_of(location: tuple[str | int, ...]) -> str:
    """'messages[0].content' for pydantic's ('body', 'ask', 'messages', 0, 'content'), and
    'limit' for ('query', 'limit').

    Where a field may be one of several kinds pydantic names the kind too, 'constrained-int': that
    is none of the caller's business.
    """
    field = ""
    for part in location[2 if location[0] == "body" else 1 :]:
        if str(part).startswith("constrained-"):
            continue
        field += f"[{part}]" if isinstance(part, int) else f".{part}"
    return field.removeprefix(".")


def respond(request: HttpRequest, fault: ApiFault) -> HttpResponseBase:
    response = JsonResponse(fault.body(), status=fault.status)
    if fault.status == 401:
        response["WWW-Authenticate"] = "Bearer"
    if fault.retry_after is not None:
        response["Retry-After"] = str(fault.retry_after)
    return response
