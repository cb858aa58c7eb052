"""Questions to a judge model over the chat completions API that OpenAI-compatible servers share.

The connection goes to a checked address (feedback/webhooks/addresses.py) and follows no redirect.
The API key is in the request's header only: no error and no answer that this module returns
contains it.
"""

import json
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any

import httpcore
import httpx
from django.conf import settings

from feedback_app.feedback.webhooks.addresses import Target, target_of
from feedback_app.feedback.webhooks.http_client import Pinned, TimedStream, ascii_url, netloc
from feedback_app.web.errors import UserError

Message = Mapping[str, str]

NAMED = "A judge model"
PATH = "/chat/completions"
CONNECT_SECONDS = 10.0
#: A waiting read looks this often whether it is to stop.
STEP_SECONDS = 0.5
LARGEST_ANSWER = 2**20
#: Enough for a model that reasons before it answers.
ANSWER_TOKENS = 2048
#: Longest text of a server that is passed on.
SHOWN = 300
BUSY = {408, 409, 425, 429}
#: The server does not know the request's parameters, or the question is too long for the model.
NOT_UNDERSTOOD = {400, 422}
#: Wrong key, no access, wrong address or model name: every question would fail.
REFUSED = {401, 403, 404, 405}


class JudgeFailed(Exception):
    """A question has no answer. `again`: a repetition may succeed; `fatal`: no question will."""

    def __init__(self, why: str, *, again: bool = False, fatal: bool = False) -> None:
        super().__init__(why)
        self.again = again
        self.fatal = fatal


class _Stream(TimedStream):
    """A connection that ends at a deadline, or soon after `stop` is set."""

    def __init__(self, stream: httpcore.NetworkStream, until: float, stop: threading.Event) -> None:
        super().__init__(stream, until)
        self.stop = stop

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        silent = time.monotonic() + (STEP_SECONDS if timeout is None else timeout)
        while True:
            step = min(STEP_SECONDS, self.left(silent - time.monotonic()))
            try:
                return self.stream.read(max_bytes, max(step, 0.001))
            except httpcore.ReadTimeout:
                if self.stop.is_set() or time.monotonic() >= silent:
                    raise

    def start_tls(self, *args: Any, **kwargs: Any) -> httpcore.NetworkStream:
        return _Stream(super().start_tls(*args, **kwargs), self.until, self.stop)


class _Stoppable(Pinned):
    """Connects to the checked address; connections end when `stop` is set."""

    def __init__(self, target: Target, until: float, stop: threading.Event) -> None:
        super().__init__(target, until)
        self.stop = stop

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        stream = super().connect_tcp(host, port, timeout)
        return _Stream(stream, self.until, self.stop)


def endpoint(url: str) -> str:
    """Return the address of chat completions below a base URL such as https://host/v1."""
    short = url.rstrip("/")
    return short if short.endswith(PATH) else short + PATH


def judge_target(url: str) -> Target:
    """Return the endpoint with its checked address. Raise UserError."""
    if _parsed(url).query:
        raise UserError(f"{NAMED}'s URL must not contain a query.")
    return target_of(
        endpoint(url), named=NAMED, networks=settings.JUDGE_NETWORKS, plain_inside=True
    )


def _parsed(url: str) -> httpx.URL:
    try:
        return httpx.URL(url)
    except httpx.InvalidURL as error:
        raise UserError("This is not a valid URL.") from error


class JudgeClient:
    """Asks one judge model. Several threads may use it; a context manager.

    Requests end `seconds` after the client was made, after `silence` seconds without a byte, and
    soon after `stop` is set. The URL's address is checked when the client is made: raises
    UserError.
    """

    def __init__(
        self,
        *,
        url: str,
        model: str,
        api_key: str,
        seconds: float,
        silence: float | None = None,
        connections: int = 1,
        stop: threading.Event | None = None,
    ) -> None:
        self.model = model
        self.stop = stop or threading.Event()
        self.silence = settings.JUDGE_SILENCE_SECONDS if silence is None else silence
        self._api_key = api_key
        # set once a server has refused optional parameters and answered without them
        self._plain = False
        target = judge_target(url)
        self._url = ascii_url(target.url)
        self._host = netloc(target.url)
        self.address = target.url
        self._pool = httpcore.ConnectionPool(
            ssl_context=httpx.create_ssl_context(trust_env=False),
            network_backend=_Stoppable(target, time.monotonic() + seconds, self.stop),
            max_connections=connections,
        )

    def __enter__(self) -> "JudgeClient":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._pool.close()

    def ask(self, messages: Sequence[Message], *, schema: Mapping[str, Any]) -> str:
        """Return the model's answer to a conversation, asked to follow a JSON schema.

        Servers that do not know the schema or the temperature are asked without them. Raise
        JudgeFailed.
        """
        body: dict[str, Any] = {"model": self.model, "messages": list(messages)}
        if self._plain:
            return self._answer(*self._post(body))
        status, raw = self._post(
            body
            | {
                "temperature": 0,
                "max_tokens": ANSWER_TOKENS,
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "answer", "strict": True, "schema": schema},
                },
            }
        )
        if status in NOT_UNDERSTOOD:
            plain_status, plain_raw = self._post(body)
            if plain_status == 200:
                self._plain = True
                status, raw = plain_status, plain_raw
        return self._answer(status, raw)

    def _post(self, body: Mapping[str, Any]) -> tuple[int, bytes]:
        """Return status and body of the response. Raise JudgeFailed if there is none."""
        headers = [
            ("Host", self._host),
            ("Content-Type", "application/json"),
            ("Accept", "application/json"),
            ("Accept-Encoding", "identity"),
            ("User-Agent", "Prospect"),
        ]
        if self._api_key:
            headers.append(("Authorization", f"Bearer {self._api_key}"))
        times = {"connect": CONNECT_SECONDS, "read": self.silence, "write": self.silence}
        try:
            with self._pool.stream(
                "POST",
                self._url,
                content=json.dumps(body).encode(),
                headers=headers,
                extensions={"timeout": times},
            ) as response:
                parts, size = [], 0
                for part in response.iter_stream():
                    parts.append(part)
                    size += len(part)
                    if size > LARGEST_ANSWER:
                        raise JudgeFailed("The server's response is larger than 1 MiB")
                return int(response.status), b"".join(parts)
        except httpcore.ReadTimeout as error:
            raise JudgeFailed("The server did not answer in time", again=True) from error
        except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError) as error:
            why = f"The server could not be reached: {type(error).__name__}"
            raise JudgeFailed(why, again=True) from error

    def _answer(self, status: int, raw: bytes) -> str:
        """Return the text of a response. Raise JudgeFailed for any other."""
        try:
            found = json.loads(raw)
        except (ValueError, RecursionError):
            found = None
        if status != 200:
            raise JudgeFailed(
                f"The server answered {status}{self._detail(found)}",
                again=status >= 500 or status in BUSY,
                fatal=status in REFUSED or 300 <= status < 400,
            )
        try:
            content = found["choices"][0]["message"]["content"]
        except (KeyError, IndexError, TypeError):
            content = None
        if not isinstance(content, str):
            raise JudgeFailed("The server's response contains no answer of a chat model")
        return self._shown(content)

    def _detail(self, found: Any) -> str:
        """Return the message of an OpenAI-compatible error, or ""."""
        error = found.get("error") if isinstance(found, dict) else None
        message = error.get("message") if isinstance(error, dict) else None
        return f": {self._shown(message)[:SHOWN]}" if isinstance(message, str) else ""

    def _shown(self, text: str) -> str:
        """Return a server's text without the API key, and without what a database refuses."""
        if self._api_key:
            text = text.replace(self._api_key, "[API key]")
        return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text)
