"""What a check finds."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """Something that is wrong, in a sentence, and what to do about it.

    A warning is worth a look and does not make the command fail.
    """

    what: str
    do: str
    warning: bool = False


#: A check yields nothing if all is well.
Check = Callable[[], Iterable[Problem]]


def listed(names: Iterable[object], most: int = 5) -> str:
    """Return the first names with commas, and how many more there are."""
    shown = [str(name) for name in names]
    rest = f" and {len(shown) - most} more" if len(shown) > most else ""
    return ", ".join(shown[:most]) + rest


def reason(error: Exception) -> str:
    """Return an error's message on one line, as a part of a sentence."""
    return " ".join(str(error).split()).rstrip(".")
