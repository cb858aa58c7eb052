"""The people of a soak: annotators, members in the demo, visitors of a link, gateway programs."""

import re
from dataclasses import dataclass, field
from typing import ClassVar

import httpx

from tests.soak.browser import Client
from tests.soak.ledger import Person

SHOWN = re.compile(r'data-completion="(\d+)"')
STAGE = {"HX-Request": "true", "HX-Target": "stage"}
OUTBOX = {"HX-Request": "true", "HX-Target": "last"}
STREAM = {"Accept": "text/event-stream"}
#: Messages of one conversation: more would not fit into the tiny model's context.
TURNS = 3
#: Messages of one visitor: the link allows no more.
VISITOR_TURNS = 12


@dataclass
class Human(Client):
    """Somebody who acts, then thinks for a while."""

    slug: str = ""
    #: seconds between two actions, at least and at most
    thinks: ClassVar[tuple[float, float]] = (1.0, 3.0)

    async def live(self) -> None:
        """Act until the end."""
        try:
            while not self.gate.ended:
                await self.gate.pause(self.rng.uniform(*self.thinks))
                async with self.gate.action():
                    if not self.gate.ended:
                        await self.act()
        finally:
            await self.close()

    async def act(self) -> None:
        raise NotImplementedError

    def verdict(self) -> str:
        return self.rng.choices(("up", "down"), (2, 3))[0]

    async def cast(
        self, person: Person, path: str, completion: int, verdict: str, **body: object
    ) -> httpx.Response:
        """Send a verdict, or an undo, until it is accepted or refused; note it if accepted."""
        response = await self.send("POST", path, again=OUTBOX, **body)
        if response.is_success:
            self.ledger.accept(person, completion, verdict)
        else:
            self.count(f"{'verdict' if verdict else 'undo'} refused with {response.status_code}")
        return response


@dataclass
class Annotator(Human):
    """Votes at the desk; skips, changes and undoes now and then."""

    user: int = 0
    item: int | None = None
    voted: list[int] = field(default_factory=list)

    @property
    def person(self) -> Person:
        return ("user", self.user)

    def read(self, response: httpx.Response) -> None:
        """Take the item of a page; a repeated verdict is answered without one."""
        found = SHOWN.search(response.text.split("<template")[0])
        self.item = int(found[1]) if found else None

    async def act(self) -> None:
        actions = {"vote": 80, "skip": 5, "change": 8, "undo": 7}
        action = self.rng.choices(list(actions), list(actions.values()))[0]
        if action in ("change", "undo") and self.voted:
            return await self.revise(self.rng.choice(self.voted[-10:]), undo=action == "undo")
        if self.item is None:
            self.read(await self.send("GET", f"/projects/{self.slug}/annotate/"))
        if self.item is None:
            self.count("queue empty")
            if self.voted:
                await self.revise(self.rng.choice(self.voted), undo=False)
            return None
        if action == "skip":
            path = f"/projects/{self.slug}/completions/{self.item}/skip/"
            self.read(await self.send("POST", path, headers=STAGE))
            return None
        return await self.vote(self.item, self.verdict(), STAGE)

    async def open_desk(self) -> None:
        await self.send("GET", f"/projects/{self.slug}/annotate/")

    async def vote(self, item: int, verdict: str, headers: dict[str, str]) -> None:
        path = f"/projects/{self.slug}/completions/{item}/vote/"
        form = {"verdict": verdict}
        response = await self.cast(self.person, path, item, verdict, headers=headers, data=form)
        if headers is STAGE:
            self.read(response)
        if response.is_success and item not in self.voted:
            self.voted.append(item)

    async def revise(self, item: int, *, undo: bool) -> None:
        if not undo:
            return await self.vote(item, self.verdict(), OUTBOX)
        path = f"/projects/{self.slug}/completions/{item}/undo/"
        response = await self.cast(self.person, path, item, "", headers=STAGE)
        self.read(response)
        if response.is_success:
            self.voted.remove(item)
        return None


@dataclass
class Chatter(Human):
    """Asks in the demo, reads the stream, gives thumbs, stops an answer now and then."""

    thinks: ClassVar[tuple[float, float]] = (3.0, 8.0)
    user: int = 0
    conversation: str = ""
    turns: int = 0
    answers: list[int] = field(default_factory=list)

    @property
    def person(self) -> Person:
        return ("user", self.user)

    def ask_path(self) -> str:
        if self.conversation and self.turns < TURNS:
            return f"{self.conversation}send/"
        self.turns = 0
        return f"/demo/{self.slug}/new/"

    def vote_path(self, completion: int, action: str) -> str:
        return f"/demo/{self.slug}/completions/{completion}/{action}/"

    async def act(self) -> None:
        if self.answers and self.rng.random() < 0.3:
            return await self.thumb(self.rng.choice(self.answers[-6:]))
        pieces = self.rng.randint(2, 5) if self.rng.random() < 0.1 else None
        form = {"text": f"{self.kind} asks question {self.rng.randrange(10**6)}?"}
        events = await self.events(
            self.ask_path(), {"data": form, "headers": STREAM}, pieces=pieces
        )
        for event in events or []:
            if event["event"] == "turn":
                self.conversation = event["url"]
                self.turns += 1
        last = events[-1] if events else {"event": "refused" if events is None else "nothing"}
        if pieces is None:
            why = ": " + re.sub(r"\d+", "…", last["message"][:60]) if "message" in last else ""
            self.count(f"stream ended with {last['event']}{why}")
        if last["event"] == "done" and last["completion"] is not None:
            self.answers.append(int(last["completion"]))
            await self.thumb(self.answers[-1])
        return None

    async def ask_at_once(self) -> None:
        """Ask without regard to other questions of the same person."""
        form = {"text": "Many at once?"}
        await self.events(f"/demo/{self.slug}/new/", {"data": form, "headers": STREAM})

    async def thumb(self, completion: int) -> None:
        given = self.ledger.accepted.get((self.person, completion), [])
        undo = bool(given and given[-1]) and self.rng.random() < 0.3
        verdict = "" if undo else self.verdict()
        path = self.vote_path(completion, "undo" if undo else "vote")
        form = {} if undo else {"verdict": verdict}
        await self.cast(self.person, path, completion, verdict, headers=OUTBOX, data=form)


@dataclass
class Visitor(Chatter):
    """Uses a share link without an account, in a new browser after some messages."""

    thinks: ClassVar[tuple[float, float]] = (10.0, 16.0)
    link: str = ""

    @property
    def person(self) -> Person:
        return ("visitor", 0)

    def ask_path(self) -> str:
        return f"/s/{self.link}/send/"

    def vote_path(self, completion: int, action: str) -> str:
        return f"/s/{self.link}/completions/{completion}/{action}/"

    async def act(self) -> None:
        if self.turns >= VISITOR_TURNS:
            await self.close()
            self.renew()
            self.turns, self.answers = 0, []
        elif self.turns % TURNS == 0 and self.turns:
            await self.send("POST", f"/s/{self.link}/new/")
        await super().act()


@dataclass
class Program(Human):
    """Uses the gateway: complete answers or streams, and feedback of its own users."""

    thinks: ClassVar[tuple[float, float]] = (2.0, 6.0)
    answers: list[int] = field(default_factory=list)

    async def act(self) -> None:
        if self.answers and self.rng.random() < 0.4:
            return await self.feedback(self.rng.choice(self.answers[-8:]))
        streams = self.rng.random() < 0.5
        ask = {
            "model": "live" if self.rng.random() < 0.8 else "base",
            "messages": [{"role": "user", "content": f"Question {self.rng.randrange(10**6)}?"}],
            "max_tokens": self.rng.randint(4, 40),
            "stream": streams,
        }
        path = "/v1/chat/completions"
        if streams:
            pieces = 2 if self.rng.random() < 0.2 else None
            events = await self.events(path, {"json": ask}, pieces=pieces)
            ids = [event["completion_id"] for event in events or []]
        else:
            response = await self.send("POST", path, json=ask)
            ids = [response.json()["completion_id"]] if response.is_success else []
        if ids:
            self.answers.append(int(ids[0]))
            await self.feedback(self.answers[-1])
        return None

    async def feedback(self, completion: int) -> None:
        name = f"user-{self.rng.randrange(3)}"
        body = {"completion_id": completion, "verdict": self.verdict(), "user": name}
        response = await self.send("POST", "/v1/feedback", json=body)
        if response.is_success:
            self.ledger.accept(("api", name), completion, body["verdict"])
        else:
            self.count(f"feedback refused with {response.status_code}")
