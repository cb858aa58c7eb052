"""Two texts side by side, with the words marked that differ."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

#: Longer texts are shown without marks: a word-by-word diff would take too long.
MARKED_WORDS = 600


@dataclass(frozen=True)
class Piece:
    """A part of a text; `marked` if the other text does not contain it."""

    text: str
    marked: bool


def differences(before: str, after: str) -> tuple[list[Piece], list[Piece], float]:
    """Return both texts in pieces, with differing words marked, and the share of marked words."""
    old, new = words_of(before), words_of(after)
    if before == after:
        return [Piece(before, marked=False)], [Piece(after, marked=False)], 0.0
    if max(len(old), len(new)) > MARKED_WORDS:
        return [Piece(before, marked=False)], [Piece(after, marked=False)], 1.0
    left: list[Piece] = []
    right: list[Piece] = []
    marked = 0
    same = SequenceMatcher(None, bare(old), bare(new), autojunk=False)
    for tag, from_old, to_old, from_new, to_new in same.get_opcodes():
        differs = tag != "equal"
        marked += differs * (to_old - from_old + to_new - from_new)
        for side, words in ((left, old[from_old:to_old]), (right, new[from_new:to_new])):
            if words:
                side.append(Piece("".join(words), marked=differs))
    return left, right, marked / (len(old) + len(new))


def words_of(text: str) -> list[str]:
    """Return the words with the white space after each; joined they are the text."""
    return re.findall(r"^\s+|\S+\s*", text)


def bare(words: Sequence[str]) -> list[str]:
    """Return the words without white space, as they are compared."""
    return [word.strip() for word in words]
