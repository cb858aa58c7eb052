"""Markdown of models and imports as sanitised HTML, in bounded time.

Model output is untrusted: raw HTML is shown as text, images are not loaded (an image address can
leak a conversation), only allowed tags and link schemes are kept, and a text that is too large for
Markdown is shown as plain text.
"""

import re
from functools import lru_cache

import nh3
from django.utils.html import escape, format_html
from django.utils.safestring import SafeString, mark_safe
from markdown_it import MarkdownIt

from feedback_app.web.text.highlight import CLASSES, highlighted

#: Characters; longer texts are shown as plain text.
MARKDOWN_LIMIT = 20_000
#: Characters of a plain text that are shown.
PLAIN_LIMIT = 200_000
#: Wider tables are not rendered: every shorter row would be padded to this many cells.
CELL_LIMIT = 40

TAGS = {
    *("p", "br", "hr", "strong", "em", "code", "pre", "blockquote", "ul", "ol", "li", "a"),
    *("h1", "h2", "h3", "h4", "h5", "h6", "table", "thead", "tbody", "tr", "th", "td", "span"),
}
_ATTRIBUTES = {"a": {"href", "title"}, "ol": {"start"}}
#: A list has its bullets, and a quotation its line, on the side where its own text begins.
_DIRECTION = {tag: {"dir": "auto"} for tag in ("ul", "ol", "blockquote")}
_SCHEMES = {"http", "https", "mailto"}

_OPTIONS = {"html": False, "highlight": highlighted}
_PLAIN_TABLES = MarkdownIt("commonmark", _OPTIONS).disable("image")
_FULL = MarkdownIt("commonmark", _OPTIONS).enable("table").disable("image")
_WIDE_ROW = re.compile(rf"^(?:[^|\n]*\|){{{CELL_LIMIT}}}", re.MULTILINE)


@lru_cache(maxsize=256)  # an item is rendered twice: prefetched, then shown
def render(text: str) -> SafeString:
    """Return the HTML of one message. Never raises; time is linear in the text and bounded."""
    if len(text) > MARKDOWN_LIMIT:
        return _plain(text)
    markdown = _PLAIN_TABLES if _WIDE_ROW.search(text) else _FULL
    html = nh3.clean(
        markdown.render(text),
        tags=TAGS,
        attributes=_ATTRIBUTES,
        allowed_classes={"span": set(CLASSES.values())},
        set_tag_attribute_values=_DIRECTION,
        url_schemes=_SCHEMES,
        link_rel="nofollow noopener noreferrer",
    )
    return mark_safe(html)  # noqa: S308 - nh3 has just cleaned it


def _plain(text: str) -> SafeString:
    shown, left = text[:PLAIN_LIMIT], max(0, len(text) - PLAIN_LIMIT)
    note = format_html('<p class="muted">… {} more characters are not shown.</p>', left)
    return format_html('<div class="plain-text">{}</div>{}', escape(shown), note if left else "")
