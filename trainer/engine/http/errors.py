"""Refused requests: one format for every reason, as OpenAI's clients expect it."""

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from trainer.engine.http.protocol import error_body


class Refusal(Exception):
    """An error response with a status and a sentence on what to do."""

    def __init__(self, status: int, message: str, kind: str = "invalid_request_error") -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind


async def on_refusal(request: Request, error: Exception) -> Response:
    """Starlette's handler for refusals, unknown routes and unexpected errors."""
    if isinstance(error, Refusal):
        return JSONResponse(error_body(str(error), error.kind, error.status), error.status)
    if isinstance(error, HTTPException):
        body = error_body(error.detail, "invalid_request_error", error.status_code)
        return JSONResponse(body, error.status_code)
    return JSONResponse(error_body("The engine failed; see its log.", "server_error", 500), 500)
