"""The people of the load test, for locust: annotators, chats, visitors and clients of the API.

The environment variable LOAD_WORLD names the file that fill.py wrote, LOAD_RESULT the file for what
was measured after the first LOAD_WARM seconds, as JSON. Locust runs outside of the
project's environment, so nothing of the project is imported here.
"""

import itertools
import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlencode

import gevent
from locust import FastHttpUser, between, events, task

WORLD = json.loads(Path(os.environ["LOAD_WORLD"]).read_text())
SHARES: dict[str, int] = json.loads(os.environ["LOAD_SHARES"])
THINK = float(os.environ["LOAD_THINK"])
WARM = float(os.environ["LOAD_WARM"])
SLUG = WORLD["project"]
CSRF = "a" * 32
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
HTMX = {**FORM, "HX-Request": "true", "HX-Target": "stage"}
STREAM = {**FORM, "Accept": "text/event-stream"}
SHOWN = re.compile(r'data-completion="(\d+)"')
DONE = re.compile(r'"completion": (\d+)')
QUESTION = "How do I change my password on the tablet?"
NEXT = urlencode({"text": QUESTION})
FIRST = urlencode({"text": QUESTION, "choice": "live"})
NEW_AFTER = 4  # messages of a conversation

results: list[tuple[float, str, str, float, int, bool]] = []
#: of all the time, also while it warms up
votes = total = 0
begun = cpu = 0.0
ended = (0.0, 0.0)


class NotDone(Exception):
    """An action that was refused for now, or failed; it was recorded."""


class Person(FastHttpUser):
    """One person. `kind` is what results are grouped by; a refusal is waited for."""

    abstract = True
    kind = ""
    #: seconds between two actions
    wait_time = between(0, 2 * THINK)
    network_timeout = connection_timeout = 120.0
    default_headers = {"X-CSRFToken": CSRF}
    cookies: dict[str, str] = {}

    @task
    def act(self) -> None:
        with suppress(NotDone):
            self.step()

    def step(self) -> None:
        """Do the next action."""
        raise NotImplementedError

    def send(self, name: str, method: str, path: str, body: str = "", **options: object) -> str:
        """Return the response's text. Raise NotDone, after waiting as long as a refusal says."""
        global total
        started = time.monotonic()
        sent = options.pop("headers", {})
        cookie = "; ".join(f"{key}={value}" for key, value in self.cookies.items())
        headers = {"Cookie": cookie, **self.default_headers, **sent}
        with self.client.request(
            method,
            path,
            data=body,
            headers=headers,
            name=name,
            catch_response=True,
            allow_redirects=False,
            **options,
        ) as response:
            text = response.text or ""
            status = response.status_code
            retry = response.headers.get("Retry-After") if response.headers else None
            polite = status in (429, 503) and retry is not None
            if polite or status in (200, 201, 302):
                response.success()
            for line in response.headers.getlist("Set-Cookie") if response.headers else ():
                key, _, value = line.split(";")[0].partition("=")
                self.cookies[key] = value
        total += 1
        now = time.monotonic()
        results.append((now, self.kind, name, now - started, status, polite))
        if polite:
            gevent.sleep(min(float(retry), 5.0))
            raise NotDone
        if status not in (200, 201, 302):
            raise NotDone
        return text


class Member(Person):
    """Somebody who is signed in."""

    abstract = True
    waiting: Iterator[str]

    def on_start(self) -> None:
        self.cookies = {"sessionid": next(self.waiting), "csrftoken": CSRF}


class Annotator(Member):
    """Votes on the item that the page shows; the response to a vote is the next one."""

    kind = "annotator"
    waiting = itertools.cycle(WORLD["annotators"])
    page = ""

    def step(self) -> None:
        global votes
        found = SHOWN.search(self.page.split("<template")[0])
        if found is None:
            self.page = self.send("annotate", "GET", f"/projects/{SLUG}/annotate/")
            return
        path = f"/projects/{SLUG}/completions/{found[1]}/vote/"
        verdict = "up" if int(found[1]) % 3 else "down"
        self.page = self.send("vote", "POST", path, f"verdict={verdict}", headers=HTMX)
        votes += 1


class Chat(Member):
    """Asks, reads the stream, gives a thumb, and begins anew after some messages."""

    kind = "chat"
    waiting = itertools.cycle(WORLD["chats"])
    place = ""
    messages = 0
    answer = ""

    def step(self) -> None:
        global votes
        if self.answer:
            path = f"/demo/{SLUG}/completions/{self.answer}/vote/"
            self.answer = ""
            self.send("demo vote", "POST", path, "verdict=up", headers=HTMX)
            votes += 1
            return
        new = not self.place or self.messages % NEW_AFTER == 0
        path = f"/demo/{SLUG}/new/" if new else f"{self.place}send/"
        body = FIRST if new else NEXT
        text = self.send("demo send", "POST", path, body, headers=STREAM)
        self.messages += 1
        self.place = re.search(r'"url": "([^"]+)"', text)[1]
        self.answer = DONE.search(text)[1]


class Visitor(Person):
    """Opens a share link, asks, and gives a thumb."""

    kind = "visitor"
    waiting = itertools.cycle(WORLD["links"])
    answer = ""
    opened = False

    def on_start(self) -> None:
        self.cookies = {"csrftoken": CSRF}
        self.place = f"/s/{next(self.waiting)}/"

    def step(self) -> None:
        global votes
        if not self.opened:
            self.send("shared page", "GET", self.place)
            self.opened = True
        elif self.answer:
            path, self.answer = f"{self.place}completions/{self.answer}/vote/", ""
            self.send("shared vote", "POST", path, "verdict=up", headers=HTMX)
            votes += 1
        else:
            path = f"{self.place}send/"
            text = self.send("shared send", "POST", path, NEXT, headers=STREAM)
            self.answer = DONE.search(text)[1]


class Client(Person):
    """A product's server: asks through the gateway, sends thumbs, reads the data API."""

    kind = "client"
    waiting = itertools.cycle(WORLD["tokens"])
    steps = 0
    answer = 0

    def on_start(self) -> None:
        self.default_headers = {
            "Authorization": f"Bearer {next(self.waiting)}",
            "Content-Type": "application/json",
        }

    def step(self) -> None:
        global votes
        self.steps += 1
        if self.answer:
            body = {"completion_id": self.answer, "verdict": "up", "user": f"u{self.steps}"}
            self.answer = 0
            self.send("feedback", "POST", "/v1/feedback", json.dumps(body))
            votes += 1
        elif self.steps % 3:
            path = f"/api/v1/projects/{SLUG}/completions?limit=20"
            self.send("list answers", "GET", path)
        else:
            ask = {"model": "live", "messages": [{"role": "user", "content": QUESTION}]}
            text = self.send("chat completion", "POST", "/v1/chat/completions", json.dumps(ask))
            self.answer = json.loads(text)["completion_id"]


def weigh() -> None:
    """Set the shares. A variable of the module with a class would be one more kind to locust."""
    for kind in (Annotator, Chat, Visitor, Client):
        kind.weight = SHARES.get(kind.kind, 0)
        kind.abstract = not kind.weight


weigh()


@events.spawning_complete.add_listener
def spawned(**_: object) -> None:
    global begun
    begun = time.monotonic()
    gevent.spawn_later(WARM, warmed)


def warmed() -> None:
    global cpu
    cpu = time.process_time()


@events.test_stop.add_listener
def stopping(**_: object) -> None:
    """Called before people end what they have begun."""
    global ended
    ended = time.monotonic(), time.process_time()


@events.quitting.add_listener
def write(**_: object) -> None:
    found = {
        "votes": votes,
        "total": total,
        "seconds": ended[0] - begun - WARM,
        "cpu": ended[1] - cpu,
        "requests": [values for end, *values in results if begun + WARM < end < ended[0]],
    }
    Path(os.environ["LOAD_RESULT"]).write_text(json.dumps(found))
