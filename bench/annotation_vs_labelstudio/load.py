"""The load client, a separate process: many people take an item and submit a verdict in a loop.

It uses `http.client` in threads: the client shares the machine with the servers, and a heavier
library would add to the measurement. It reads its job as JSON on stdin and prints figures as JSON.
"""

import http.client
import json
import re
import sys
import threading
import time
from dataclasses import dataclass, field
from urllib.parse import urlencode

SHOWN = re.compile(r'data-completion="(\d+)"')
CSRF = "a" * 32


class Failed(Exception):
    """A response with which an annotator could not continue."""


@dataclass
class Person:
    """One annotator: a persistent connection, and a record of its cycles."""

    port: int
    session: str
    project: str
    cycles: list[tuple[float, float]] = field(default_factory=list)  # end, seconds
    items: list[int] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        self.headers = {
            "Cookie": f"sessionid={self.session}; csrftoken={CSRF}",
            "X-CSRFToken": CSRF,
        }

    def call(self, method: str, path: str, body: str | None = None, **headers: str) -> str:
        self.connection.request(method, path, body, self.headers | headers)
        answer = self.connection.getresponse()
        text = answer.read().decode()
        if answer.status == 404 and "no tasks" in text.lower():
            raise StopIteration
        if answer.status not in (200, 201):
            raise Failed(f"{method} {path}: {answer.status} {text[:200]}")
        return text

    def start(self) -> None:
        """Make the requests before the first cycle."""

    def cycle(self) -> int:
        """Take an item, submit a verdict, return its id. StopIteration: no items are left."""
        raise NotImplementedError


class Ours(Person):
    """The response to a verdict contains the next item: one request per cycle."""

    def start(self) -> None:
        self.page = self.call("GET", f"/projects/{self.project}/annotate/")

    def cycle(self) -> int:
        found = SHOWN.search(self.page.split("<template")[0])
        if found is None:
            raise StopIteration
        item = int(found[1])
        self.page = self.call(
            "POST",
            f"/projects/{self.project}/completions/{item}/vote/",
            urlencode({"verdict": "up" if item % 3 else "down"}),
            **{
                "Content-Type": "application/x-www-form-urlencoded",
                "HX-Request": "true",
                "HX-Target": "stage",
            },
        )
        return item


class LabelStudio(Person):
    """Makes the same two requests as its own pages."""

    def cycle(self) -> int:
        item = int(json.loads(self.call("GET", f"/api/projects/{self.project}/next"))["id"])
        choice = {
            "from_name": "thumb",
            "to_name": "answer",
            "type": "choices",
            "value": {"choices": ["up" if item % 3 else "down"]},
        }
        self.call(
            "POST",
            f"/api/tasks/{item}/annotations/?project={self.project}",
            json.dumps({"result": [choice], "lead_time": 1.0, "project": int(self.project)}),
            **{"Content-Type": "application/json"},
        )
        return item


def work(person: Person, budget: threading.Semaphore, until: float) -> None:
    """Run cycles until the time or the shared budget of cycles is used up."""
    try:
        person.start()
        while time.monotonic() < until and budget.acquire(blocking=False):
            started = time.monotonic()
            item = person.cycle()
            ended = time.monotonic()
            person.cycles.append((ended, ended - started))
            person.items.append(item)
    except StopIteration:
        pass
    except Exception as error:
        person.errors.append(repr(error)[:300])


def main() -> None:
    job = json.loads(sys.stdin.read())
    kind = {"ours": Ours, "label-studio": LabelStudio}[job["kind"]]
    people = [kind(job["port"], session, job["project"]) for session in job["sessions"]]
    budget = threading.Semaphore(job["cycles"])
    until = time.monotonic() + job["seconds"]
    threads = [threading.Thread(target=work, args=(person, budget, until)) for person in people]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # the first third warms up connections, templates and the database's catalogue caches
    done = sorted(cycle for person in people for cycle in person.cycles)
    warm = len(done) // 3
    counted = done[warm:]
    seconds = counted[-1][0] - done[warm - 1][0] if warm else 0.0
    print(
        json.dumps(
            {
                "rate": len(counted) / seconds if seconds else 0.0,
                "seconds": sorted(taken for _, taken in counted),
                "items": [item for person in people for item in person.items],
                "errors": [error for person in people for error in person.errors],
            }
        )
    )


if __name__ == "__main__":
    main()
