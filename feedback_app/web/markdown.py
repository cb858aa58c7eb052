"""Markdown of models and imports as safe HTML, in bounded time.

What a model writes is as hostile as what a stranger writes: raw HTML stays text, images are not
fetched (an image address can carry a conversation away), only tags and links of an allow-list
survive, and a text too large or too odd for Markdown is shown as it stands.
"""

import re
from functools import lru_cache

import nh3
from django.utils.html import escape, format_html
from django.utils.safestring import SafeString, mark_safe
from markdown_it import MarkdownIt

#: Characters. Longer texts are shown plain: Markdown is for answers, not for dumps.
MARKDOWN_LIMIT = 20_000
#: Characters of a plain text that reach the page.
PLAIN_LIMIT = 200_000
#: A row with more cells is no table anybody reads, and short rows below it are filled up to it.
CELL_LIMIT = 40

TAGS = {
    *("p", "br", "hr", "strong", "em", "code", "pre", "blockquote", "ul", "ol", "li", "a"),
    *("h1", "h2", "h3", "h4", "h5", "h6", "table", "thead", "tbody", "tr", "th", "td"),
}
_ATTRIBUTES = {"a": {"href", "title"}, "ol": {"start"}}
_SCHEMES = {"http", "https", "mailto"}

_PLAIN_TABLES = MarkdownIt("commonmark", {"html": False}).disable("image")
_FULL = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
_WIDE_ROW = re.compile(rf"^(?:[^|\n]*\|){{{CELL_LIMIT}}}", re.MULTILINE)


@lru_cache(maxsize=256)  # an item is shown twice: prefetched, then on the stage
def render(text: str) -> SafeString:
    """HTML of one message. Never raises; time grows linearly with the text and is bounded."""
    if len(text) > MARKDOWN_LIMIT:
        return _plain(text)
    markdown = _PLAIN_TABLES if _WIDE_ROW.search(text) else _FULL
    html = nh3.clean(
        markdown.render(text),
        tags=TAGS,
        attributes=_ATTRIBUTES,
        url_schemes=_SCHEMES,
        link_rel="nofollow noopener noreferrer",
    )
    return mark_safe(html)  # noqa: S308 - nh3 has just cleaned it


def _plain(text: str) -> SafeString:
    shown, left = text[:PLAIN_LIMIT], max(0, len(text) - PLAIN_LIMIT)
    note = format_html('<p class="muted">… {} more characters are not shown.</p>', left)
    return format_html('<div class="plain-text">{}</div>{}', escape(shown), note if left else "")
