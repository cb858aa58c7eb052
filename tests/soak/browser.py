"""A browser, or a program with a token: it repeats what may have been lost, as the outbox does."""

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.soak.ledger import Ledger

CSRF = "c" * 32
#: Browsers have no time-out of their own. Longer than any fault: then something hangs.
HANGS_SECONDS = 150.0
RETRY_SECONDS = (1.0, 4.0)


class Gate:
    """Lets people act. While it is closed they finish what they began; `end` sends them home."""

    def __init__(self) -> None:
        self._opened = asyncio.Event()
        self._ended = asyncio.Event()
        self.acting = 0

    def open(self) -> None:
        self._opened.set()

    def end(self) -> None:
        self._ended.set()
        self._opened.set()

    @property
    def ended(self) -> bool:
        return self._ended.is_set()

    @asynccontextmanager
    async def action(self) -> AsyncIterator[None]:
        await self._opened.wait()
        self.acting += 1
        try:
            yield
        finally:
            self.acting -= 1

    async def close(self) -> None:
        """Wait until nobody acts."""
        self._opened.clear()
        while self.acting:
            await asyncio.sleep(0.1)

    async def pause(self, seconds: float) -> None:
        """Sleep, but no longer than until the end."""
        try:
            async with asyncio.timeout(seconds):
                await self._ended.wait()
        except TimeoutError:
            return


@dataclass
class Client:
    """One person's connection to the web app."""

    kind: str
    url: str
    ledger: Ledger
    rng: random.Random
    gate: Gate
    cookies: dict[str, str] = field(default_factory=dict)
    token: str = ""
    http: httpx.AsyncClient = field(init=False)

    def __post_init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Begin with a new browser."""
        headers = {"X-CSRFToken": CSRF}
        cookies = {"csrftoken": CSRF, **self.cookies}
        if self.token:
            headers, cookies = {"Authorization": f"Bearer {self.token}"}, {}
        self.http = httpx.AsyncClient(
            base_url=self.url,
            headers=headers,
            cookies=cookies,
            timeout=httpx.Timeout(HANGS_SECONDS),
            limits=httpx.Limits(max_connections=None, keepalive_expiry=4),
        )

    def count(self, what: str) -> None:
        self.ledger.outcomes[f"{self.kind}: {what}"] += 1

    def judge(self, response: httpx.Response) -> bool:
        """Count a response; return whether it is an answer, and not a fault that will pass."""
        status = response.status_code
        where = f"{response.request.method} {response.request.url.path}"
        self.count(str(status))
        if status == 500 or (status > 500 and status != 503):
            self.ledger.fault(f"{self.kind}: {where} was answered with {status}")
        if status in (401, 403) or "/accounts/login" in response.headers.get("location", ""):
            self.ledger.fault(f"{self.kind}: {where} was refused with {status}: signed out")
        return status < 500 and status not in (401, 403, 429)

    def lost(self, error: httpx.HTTPError) -> None:
        self.count("connection lost")
        if isinstance(error, httpx.TimeoutException):
            self.ledger.fault(f"{self.kind}: no answer for {HANGS_SECONDS:.0f} s: {error.request}")

    async def wait(self) -> None:
        await asyncio.sleep(self.rng.uniform(*RETRY_SECONDS))

    async def send(
        self, method: str, path: str, *, again: dict[str, str] | None = None, **body: Any
    ) -> httpx.Response:
        """Return the answer; repeat the request until there is one.

        `again` are headers of the repetitions.
        """
        while True:
            try:
                response = await self.http.request(method, path, **body)
            except httpx.HTTPError as error:
                self.lost(error)
            else:
                if self.judge(response):
                    return response
            if again:
                body["headers"] = again
            await self.wait()

    async def events(
        self, path: str, body: dict[str, Any], *, pieces: int | None = None
    ) -> list[dict[str, Any]] | None:
        """Return the events of a stream, each with its name, or None if it was refused.

        A stream that breaks off gives the events until then. After `pieces` events it is stopped.
        """
        found: list[dict[str, Any]] = []
        name = ""
        try:
            async with self.http.stream("POST", path, **body) as response:
                if response.status_code == 404:
                    self.ledger.fault(f"{self.kind}: {path} was announced, and is not there")
                if not self.judge(response) or response.is_error:
                    return None
                async for line in response.aiter_lines():
                    if line.startswith("event: "):
                        name = line.removeprefix("event: ")
                    elif line.startswith("data: ") and line != "data: [DONE]":
                        data = json.loads(line.removeprefix("data: "))
                        found.append({"event": name, **data})
                        if pieces is not None and len(found) >= pieces:
                            self.count("stopped")
                            break
        except httpx.HTTPError as error:
            self.lost(error)
        return found

    async def close(self) -> None:
        await self.http.aclose()
