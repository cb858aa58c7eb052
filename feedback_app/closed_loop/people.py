"""Simulated people: they sign in and work over HTTP, on the pages of the app."""

import random
from dataclasses import dataclass, field
from html.parser import HTMLParser

import httpx

from feedback_app.closed_loop.rule import judge

VOID = frozenset(
    "area base br col embed hr img input link meta param source track wbr path circle".split()
)


class PageError(Exception):
    """A page did not work as expected."""


@dataclass(frozen=True)
class Item:
    """The item on an annotation page: completion id, question, answer, and how it ended."""

    completion: int
    question: str
    answer: str
    complete: bool


class ItemParser(HTMLParser):
    """Reads the item on an annotation page by its data attributes; ignores <template>."""

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
        # separate the text of block elements, such as two list items
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
        """Return the item on the page, or None."""
        if self.completion is None:
            return None
        return Item(
            completion=self.completion,
            question=" ".join("".join(self.texts["data-prompt"]).split()),
            answer=" ".join("".join(self.texts["data-answer"]).split()),
            complete=self.finish == "stop",
        )


@dataclass
class Person:
    """A person with a browser: cookies, CSRF token, long time-outs."""

    base_url: str
    email: str
    password: str
    client: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        # a release waits for an engine that may be slow
        self.client = httpx.Client(base_url=self.base_url, timeout=600.0, follow_redirects=True)

    def close(self) -> None:
        """Close the browser: its connections."""
        self.client.close()

    def sign_in(self) -> None:
        """Sign in through the form."""
        self.client.get("/accounts/login/").raise_for_status()
        answer = self.post("/accounts/login/", {"login": self.email, "password": self.password})
        if "/accounts/login" in str(answer.url):
            raise PageError(f"{self.email} could not sign in.")

    def post(self, path: str, data: dict[str, str | list[str]]) -> httpx.Response:
        """Send a form like a browser, with token and referer."""
        token = self.client.cookies.get("csrftoken", "")
        response = self.client.post(
            path,
            data={**data, "csrfmiddlewaretoken": token},
            headers={"Referer": f"{self.base_url}{path}"},
        )
        if response.is_error:
            raise PageError(f"POST {path} answered {response.status_code}: {response.text[:300]}")
        return response

    def get(self, path: str) -> httpx.Response:
        response = self.client.get(path)
        if response.is_error:
            raise PageError(f"GET {path} answered {response.status_code}: {response.text[:300]}")
        return response


@dataclass
class Annotator(Person):
    """Votes by the rule, with a fixed rate of errors."""

    noise: float = 0.1
    seed: int = 0
    votes: int = 0
    flipped: int = 0

    def item_on_screen(self, slug: str) -> Item | None:
        """Open the annotation page and read its item."""
        parser = ItemParser()
        parser.feed(self.get(f"/projects/{slug}/annotate/").text)
        return parser.item()

    def verdict(self, item: Item) -> tuple[bool, list[str]]:
        """Return whether the rule likes the answer, and the reasons if it does not."""
        finding = judge(question=item.question, answer=item.answer, complete=item.complete)
        return finding.up, finding.reasons

    def vote_once(self, slug: str) -> bool:
        """Reads what is on the screen and votes; False if nothing was there."""
        item = self.item_on_screen(slug)
        if item is None:
            return False
        up, reasons = self.verdict(item)
        # by completion, so that the noise does not depend on who gets which item
        erring = random.Random(self.seed * 1_000_003 + item.completion)  # noqa: S311
        form: dict[str, str | list[str]] = {}
        if erring.random() < self.noise:
            up = not up
            self.flipped += 1
        elif not up and reasons:
            form["reasons"] = reasons
        form["verdict"] = "up" if up else "down"
        self.post(f"/projects/{slug}/completions/{item.completion}/vote/", form)
        self.votes += 1
        return True
