"""Counts in sentences."""


def number_of(count: int, noun: str, plural: str = "") -> str:
    """Return '1 example' or '1,200 examples': the count with its noun; `plural` if it is not the
    noun with an s."""
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"
