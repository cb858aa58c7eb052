"""Splitting of a text/event-stream into lines."""

from collections.abc import Iterator


def event_lines(pieces: Iterator[str]) -> Iterator[str]:
    """Yield the lines of a text/event-stream. Only a line feed ends a line.

    httpx's `iter_lines` also splits at U+0085 and U+2028, which a model may generate and JSON need
    not escape.
    """
    rest = ""
    for piece in pieces:
        *lines, rest = (rest + piece).split("\n")
        yield from lines
    if rest:
        yield rest
