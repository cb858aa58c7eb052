"""The client: one connection at a time, real HTTP, the time of each request."""

import http.client
import re
import time
from typing import Any
from urllib.parse import urlencode

from bench.scale_parts.operations import Operation, Post, body_of, url_of
from tests.faults.test_crawl import routes

CSRF = "a" * 32
#: The server closes a connection that is idle for 30 s while the other site has its turn.
IDLE = 20.0
SHOWN = re.compile(r'data-completion="(\d+)"')
FINE = {200, 204, 286, 302}
#: A response that redirects here was refused.
LOGIN = "/accounts/login/"


class Refused(Exception):
    """A response with which an operation cannot be measured."""


class Client:
    """Makes the requests of an operation to the server of one size."""

    def __init__(self, port: int, world: dict[str, Any]) -> None:
        self.port, self.world = port, world
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
        self.routes = {route.name: route for route in routes() if not route.api}
        self.number = 0
        self.used = 0.0

    def call(
        self, who: str, method: str, url: str, body: str = "", headers: dict[str, str] | None = None
    ) -> tuple[float, int, str]:
        """Return the seconds, the status and the text of a response."""
        sent = dict(headers or {})
        if ":" in who or who in ("chat", "feedback"):
            sent["Authorization"] = f"Bearer {self.world['tokens'][who]}"
        else:
            sent["Cookie"] = f"sessionid={self.world['sessions'][who]}; csrftoken={CSRF}"
            sent["X-CSRFToken"] = CSRF
        if time.monotonic() - self.used > IDLE:
            self.connection.close()  # the next request opens another
        started = time.perf_counter()
        self.connection.request(method, url, body or None, sent)
        answer = self.connection.getresponse()
        text = answer.read().decode()
        taken = time.perf_counter() - started
        self.used = time.monotonic()
        if (answer.getheader("Location") or "").startswith(LOGIN):
            return taken, 401, text
        return taken, answer.status, text

    def ids(self, operation: Operation) -> list[Any]:
        """Return the next ids of the places in the operation's URL."""
        pools = self.world["places"]
        found = []
        for pool in operation.pools:
            if pool == "link":
                found.append(self.world["link"])
            elif pool == "item":
                found.append(self.item(operation.who))
            else:
                values = pools[pool]
                if not values:
                    raise Refused(f"{operation.name}: there is no {pool}")
                found.append(values[self.number % len(values)])
        return found

    def item(self, who: str) -> int:
        """Return the item that the annotation page shows."""
        url = f"/projects/{self.world['project']}/annotate/"
        _, status, page = self.call(who, "GET", url)
        shown = SHOWN.search(page.split("<template")[0])
        if shown is None:
            raise Refused(f"{url}: {status}, no item is shown")
        return int(shown[1])

    def measure(self, operation: Operation) -> float:
        """Make the operation's request once; return its milliseconds."""
        self.number += 1
        ids = self.ids(operation)
        post, body, headers = operation.post, "", dict(operation.headers)
        if post:
            headers |= post.headers
            if post.before:
                self.prepare(operation, post, ids)
            body, headers["Content-Type"] = body_of(post, post.body, self.world, self.number)
        method = "POST" if post else "GET"
        url = operation.url(self.world, ids)
        taken, status, text = self.call(operation.who, method, url, body, headers)
        if status not in FINE:
            raise Refused(f"{operation.name}: {url} answered {status}: {plain(text)}")
        return 1_000 * taken

    def prepare(self, operation: Operation, post: Post, ids: list[Any]) -> None:
        """Make the request before, which is not measured."""
        route = self.routes[post.before]
        headers = post.headers | {"Content-Type": "application/x-www-form-urlencoded"}
        body = urlencode(post.before_body)
        self.call(operation.who, "POST", url_of(route, ids, self.world), body, headers)


def plain(text: str) -> str:
    """Return the beginning of a page's text."""
    text = re.sub(r"<(style|script|svg|head).*?</\1>", " ", text, flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", text))[:600]
