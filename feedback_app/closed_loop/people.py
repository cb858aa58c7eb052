"""Simulated people: they sign in and work over real HTTP, on the pages that real people use."""

import random
from dataclasses import dataclass, field
from html.parser import HTMLParser

import httpx

from feedback_app.closed_loop.rule import judge

VOID = frozenset(
    "area base br col embed hr img input link meta param source track wbr path circle".split()
)


class PageFault(Exception):
    """A page did not do what a person would expect of it."""


@dataclass(frozen=True)
class Item:
    """What an annotator sees: which completion, the question, the answer, how it ended."""

    completion: int
    question: str
    answer: str
    ended_by_itself: bool


class ItemParser(HTMLParser):
    """Reads the item on an annotation page by its data attributes; templates are not on screen."""

    def __init__(self) -> None:
        super().__init__()
        self.completion: int | None = None
        self.finish = ""
        self.texts: dict[str, list[str]] = {"data-prompt": [], "data-answer": []}
        self._open: list[tuple[str, str | None]] = []
        self._hidden = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = dict(attrs)
        if tag == "template":
            self._hidden += 1
        if not self._hidden and "data-completion" in names and self.completion is None:
            self.completion = int(names["data-completion"] or 0)
            self.finish = names.get("data-finish") or ""
        if tag not in VOID:
            mark = next((name for name in self.texts if name in names), None)
            self._open.append((tag, mark))

    def handle_endtag(self, tag: str) -> None:
        while self._open:
            opened, _ = self._open.pop()
            if opened == tag:
                break
        if tag == "template":
            self._hidden -= 1
        # block ends part words: the text of two list items must not run together
        for mark, parts in self.texts.items():
            if any(open_mark == mark for _, open_mark in self._open):
                parts.append(" " if tag in ("li", "p", "td", "pre", "br", "h1", "h2", "h3") else "")

    def handle_data(self, data: str) -> None:
        if self._hidden:
            return
        for _, mark in self._open:
            if mark is not None:
                self.texts[mark].append(data)

    def item(self) -> Item | None:
        """The item on the screen, if there is one."""
        if self.completion is None:
            return None
        return Item(
            completion=self.completion,
            question=" ".join("".join(self.texts["data-prompt"]).split()),
            answer=" ".join("".join(self.texts["data-answer"]).split()),
            ended_by_itself=self.finish == "stop",
        )


@dataclass
class Person:
    """Somebody with a browser: cookies, CSRF token, patience."""

    base_url: str
    email: str
    password: str
    client: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        # a release waits for the engine, which may be slow
        self.client = httpx.Client(base_url=self.base_url, timeout=600.0, follow_redirects=True)

    def sign_in(self) -> None:
        """Through the sign-in form."""
        self.client.get("/accounts/login/").raise_for_status()
        answer = self.post("/accounts/login/", {"login": self.email, "password": self.password})
        if "/accounts/login" in str(answer.url):
            raise PageFault(f"{self.email} could not sign in.")

    def post(self, path: str, data: dict[str, str | list[str]]) -> httpx.Response:
        """Sends a form as a browser does, with its token and referer."""
        token = self.client.cookies.get("csrftoken", "")
        response = self.client.post(
            path,
            data={**data, "csrfmiddlewaretoken": token},
            headers={"Referer": f"{self.base_url}{path}"},
        )
        if response.is_error:
            raise PageFault(f"POST {path} answered {response.status_code}: {response.text[:300]}")
        return response

    def get(self, path: str) -> httpx.Response:
        response = self.client.get(path)
        if response.is_error:
            raise PageFault(f"GET {path} answered {response.status_code}: {response.text[:300]}")
        return response


@dataclass
class Annotator(Person):
    """Votes by the rule, and errs at a fixed rate as people do."""

    noise: float = 0.1
    seed: int = 0
    votes: int = 0
    flipped: int = 0

    def item_on_screen(self, slug: str) -> Item | None:
        """Opens the annotation page and reads it."""
        parser = ItemParser()
        parser.feed(self.get(f"/projects/{slug}/annotate/").text)
        return parser.item()

    def vote_once(self, slug: str) -> bool:
        """Reads what is on the screen and votes; False if nothing was there."""
        item = self.item_on_screen(slug)
        if item is None:
            return False
        finding = judge(
            question=item.question, answer=item.answer, ended_by_itself=item.ended_by_itself
        )
        up = finding.up
        # by completion, so that the noise does not depend on who gets which item
        erring = random.Random(self.seed * 1_000_003 + item.completion)  # noqa: S311
        form: dict[str, str | list[str]] = {}
        if erring.random() < self.noise:
            up = not up
            self.flipped += 1
        elif not up and finding.reasons:
            form["reasons"] = finding.reasons
        form["verdict"] = "up" if up else "down"
        self.post(f"/projects/{slug}/completions/{item.completion}/vote/", form)
        self.votes += 1
        return True
