"""From token ids to text while an answer is still being written."""

from collections.abc import Sequence
from typing import Any

#: What a decoder puts where bytes do not (yet) make up a character.
INCOMPLETE = "\N{REPLACEMENT CHARACTER}"


class TextStream:
    """Text of an answer, token by token, with stop strings taken out.

    A character may be spread over several tokens and a stop string over several pieces: both are
    held back until it is clear what they are, so what was handed out never has to be taken back.
    """

    def __init__(self, tokenizer: Any, stop: Sequence[str] = ()) -> None:
        self.text = ""
        self.stopped = False
        self._tokenizer = tokenizer
        self._stop = tuple(stop)
        self._ids: list[int] = []
        # tokens before `_context` are settled; those up to `_read` are already in the text and
        # are decoded again only because a tokenizer may join or space what comes after them
        self._context = 0
        self._read = 0
        self._given = 0

    def push(self, token: int) -> str:
        """Take the next token; returns the text that can be shown now (often empty)."""
        self._ids.append(token)
        fresh = self._fresh()
        if not fresh or fresh.endswith(INCOMPLETE):
            return ""
        self._context, self._read = self._read, len(self._ids)
        return self._add(fresh)

    def finish(self) -> str:
        """Return the rest, broken characters included; call it once, after the last token."""
        piece = "" if self.stopped else self._add(self._fresh())
        self._read = len(self._ids)
        rest = self.text[self._given :]
        self._given = len(self.text)
        return piece + rest

    def _fresh(self) -> str:
        known = self._decode(self._ids[self._context : self._read])
        return self._decode(self._ids[self._context :])[len(known) :]

    def _decode(self, ids: list[int]) -> str:
        return str(
            self._tokenizer.decode(
                ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
        )

    def _add(self, fresh: str) -> str:
        longest = max(map(len, self._stop), default=1)
        start = max(0, len(self.text) - longest + 1)
        self.text += fresh
        found = [at for stop in self._stop if (at := self.text.find(stop, start)) >= 0]
        if found:
            self.text = self.text[: min(found)]
            self.stopped = True
        safe = len(self.text) if self.stopped else len(self.text) - self._held_back()
        piece = self.text[self._given : safe]
        self._given = max(self._given, safe)
        return piece

    def _held_back(self) -> int:
        """Return how many characters at the end could be the beginning of a stop string."""
        return max(
            (
                size
                for stop in self._stop
                for size in range(1, len(stop))
                if self.text.endswith(stop[:size])
            ),
            default=0,
        )
