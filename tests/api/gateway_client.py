"""A client for tests of the API: it sends a token and has no session."""

from dataclasses import dataclass
from typing import Any

from django.core.signals import request_finished
from django.db import close_old_connections
from django.http import HttpResponseBase, StreamingHttpResponse
from django.test import Client

from feedback_app.accounts.models import ApiToken

CHAT = "/v1/chat/completions"
FEEDBACK = "/v1/feedback"
HELLO = [{"role": "user", "content": "Hello?"}]


@dataclass(frozen=True)
class Program:
    """An API client with a token's secret."""

    token: ApiToken
    secret: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.secret}"}

    def get(self, path: str) -> Any:
        return Client().get(path, headers=self.headers)

    def post(self, path: str, body: Any) -> Any:
        return Client(enforce_csrf_checks=True).post(
            path, body, content_type="application/json", headers=self.headers
        )

    def ask(self, **fields: Any) -> Any:
        """Send the smallest valid chat request, changed by `fields`."""
        body = {"model": "live", "messages": HELLO, "max_tokens": 8, **fields}
        return self.post(CHAT, body)

    def thumb(self, completion: Any, verdict: str = "up", **fields: Any) -> Any:
        return self.post(FEEDBACK, {"completion_id": completion, "verdict": verdict, **fields})


def fault(response: HttpResponseBase) -> tuple[int, str, str | None]:
    """Return status, code and param of a refusal, which must have OpenAI's format."""
    error = response.json()["error"]  # type: ignore[attr-defined]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    return response.status_code, error["code"], error["param"]


def hang_up(response: StreamingHttpResponse) -> None:
    """Close a stream as a server does after a disconnect; keep the test's database connection."""
    request_finished.disconnect(close_old_connections)
    try:
        response._iterator.close()  # type: ignore[attr-defined] # closes all once started
        if not response.closed:
            response.close()
    finally:
        request_finished.connect(close_old_connections)
