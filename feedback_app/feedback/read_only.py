"""Pages of an archived project: what it would refuse is disabled.

A form is refused where its view is (feedback/access.py), so no template lists which forms these
are, and a new one follows.
"""

from html.parser import HTMLParser
from itertools import accumulate

from django.http import HttpResponse
from django.http.response import HttpResponseBase
from django.urls import Resolver404, resolve
from django.utils.html import escape

CONTROLS = {"button", "input", "select", "textarea"}


def forms_disable(response: HttpResponseBase, *, path: str, why: str) -> None:
    """Disable the controls of all forms in a page whose views refuse an archived project; `why` is
    shown when the pointer is over one. `path` is the page's own, to which a form without an action
    is sent. Everything else of the page stays as it is, byte by byte."""
    if not isinstance(response, HttpResponse):  # a stream
        return
    if not response.headers.get("Content-Type", "").startswith("text/html"):
        return
    page = response.content.decode()
    parser = RefusedForms(page, path=path, why=why)
    parser.feed(page)
    parser.close()
    response.content = parser.disabled().encode()


class RefusedForms(HTMLParser):
    """Finds the forms of a page that an archived project refuses, with their controls."""

    def __init__(self, page: str, *, path: str, why: str) -> None:
        super().__init__(convert_charrefs=False)
        self._page = page
        self._path = path
        self._title = f' title="{escape(why)}"'
        self._lines = [0, *accumulate(len(line) + 1 for line in page.split("\n"))]
        #: position in the page and what is inserted there
        self._inserted: list[tuple[int, str]] = []
        #: position and form of each control outside of these that names its form
        self._linked: list[tuple[int, str]] = []
        self._refused: set[str] = set()
        self._inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        line, column = self.getpos()
        start = self._lines[line - 1] + column
        if tag == "form":
            self._inside = self._refuses(given)
            if self._inside:
                self._refused.add(given.get("id", ""))
                self._inserted.append(
                    (start + len(self.get_starttag_text() or "") - 1, self._title)
                )
        elif tag in CONTROLS and "disabled" not in given:
            at = start + 1 + len(tag)
            if self._inside:
                self._inserted.append((at, " disabled"))
            elif "form" in given:
                self._linked.append((at, given["form"]))

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._inside = False

    def disabled(self) -> str:
        """Return the page that was read with these forms disabled."""
        linked = [(at, " disabled") for at, form in self._linked if form in self._refused]
        parts, end = [], 0
        for at, text in sorted(self._inserted + linked):
            parts += [self._page[end:at], text]
            end = at
        return "".join([*parts, self._page[end:]])

    def _refuses(self, given: dict[str, str]) -> bool:
        is_post = given.get("method", "").lower() == "post"
        return is_post and not allowed(given.get("action") or self._path)


def allowed(action: str) -> bool:
    """Return whether an archived project accepts what is sent to this URL of the site."""
    try:
        view = resolve(action.partition("?")[0]).func
    except Resolver404:
        return True
    return bool(getattr(view, "archived", True))
