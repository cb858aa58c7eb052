"""Pages of an archived project: what it would refuse is disabled.

A form is refused where its view is (feedback/access.py), so no template lists which forms these
are, and a new one follows.
"""

import re

from django.http import HttpResponse
from django.http.response import HttpResponseBase
from django.urls import Resolver404, resolve
from django.utils.html import escape

FORM = re.compile(r"(<form\b[^>]*>)(.*?)</form>", re.DOTALL)
CONTROL = re.compile(r"<(button|input|select|textarea)\b(?![^>]*\sdisabled\b)")
#: A control outside of its form.
LINKED = re.compile(
    r"<(button|input|select|textarea)\b(?![^>]*\sdisabled\b)(?=[^>]*\sform=\"([^\"]*)\")"
)
ATTRIBUTE = re.compile(r"\s(action|method|id)=\"([^\"]*)\"")


def forms_disable(response: HttpResponseBase, *, path: str, why: str) -> None:
    """Disable the controls of all forms in a page whose views refuse an archived project; `why` is
    shown when the pointer is over one. `path` is the page's own, to which a form without an action
    is sent."""
    if not isinstance(response, HttpResponse):  # a stream
        return
    if not response.headers.get("Content-Type", "").startswith("text/html"):
        return
    refused: set[str] = set()

    def form(found: re.Match[str]) -> str:
        attributes = dict(ATTRIBUTE.findall(found[1]))
        if attributes.get("method") != "post" or allowed(attributes.get("action") or path):
            return found[0]
        refused.add(attributes.get("id", ""))
        opened = f'{found[1][:-1]} title="{escape(why)}">'
        return opened + CONTROL.sub(r"<\1 disabled", found[2]) + "</form>"

    def linked(found: re.Match[str]) -> str:
        return f"{found[0]} disabled" if found[2] in refused else found[0]

    page = FORM.sub(form, response.content.decode())
    response.content = LINKED.sub(linked, page).encode()


def allowed(action: str) -> bool:
    """Return whether an archived project accepts what is sent to this URL of the site."""
    try:
        view = resolve(action.partition("?")[0]).func
    except Resolver404:
        return True
    return bool(getattr(view, "archived", True))
