"""The lines of a text/event-stream, as they come."""

from collections.abc import Iterator


def event_lines(pieces: Iterator[str]) -> Iterator[str]:
    """Lines of a text/event-stream. Only a line feed ends one: httpx's own also end at the likes of
    U+0085 and U+2028, which a model may write and JSON need not escape."""
    rest = ""
    for piece in pieces:
        *lines, rest = (rest + piece).split("\n")
        yield from lines
    if rest:
        yield rest
