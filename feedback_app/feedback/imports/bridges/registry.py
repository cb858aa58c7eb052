"""The formats, in the order in which a row is compared with them."""

from collections.abc import Callable, Mapping
from typing import Any

from feedback_app.feedback.imports.bridges import (
    argilla,
    langfuse,
    librechat,
    open_webui,
    openai_log,
)
from feedback_app.feedback.imports.bridges.thumbs import NotImportable, Thumb

Reader = Callable[[Mapping[str, Any]], list[Thumb] | None]
#: (name, the function that returns a row's votes)
FORMATS: tuple[tuple[str, Reader], ...] = (
    (open_webui.NAME, open_webui.thumbs),
    (librechat.NAME, librechat.thumbs),
    (langfuse.NAME, langfuse.thumbs),
    (argilla.NAME, argilla.thumbs),
    (openai_log.NAME, openai_log.thumbs),
)


def bridged(row: Mapping[str, Any]) -> tuple[str, list[Thumb]] | None:
    """Return the format's name and the votes of a row, or None if it is of no such format.

    Raise NotImportable for a row of a known format without a vote to import.
    """
    for name, thumbs in FORMATS:
        found = thumbs(row)
        if found is not None:
            return name, found
    return None


def format_of(row: Mapping[str, Any]) -> str:
    """Return the name of the row's format; empty if it is none of these."""
    for name, thumbs in FORMATS:
        try:
            found = thumbs(row)
        except NotImportable:
            return name
        if found is not None:
            return name
    return ""
