"""Token ids to text while they come in: no half characters, no stop strings."""

from collections.abc import Sequence
from typing import Any

REPLACEMENT = "\ufffd"  # what a decoder writes for bytes that are no character yet


class TextStream:
    """Turns a growing list of token ids into pieces of text that can be shown at once.

    A character may be split over tokens, so a piece is held back until it is whole; text that
    may be the beginning of a stop string is held back too.
    """

    def __init__(self, tokenizer: Any, stop: Sequence[str] = ()) -> None:
        self.tokenizer = tokenizer
        self.stop = tuple(stop)
        self.text = ""  # everything that was given out
        self.stopped = False
        self._ids: list[int] = []
        self._from = 0  # decoding starts here: the text before it is settled
        self._settled = 0  # ids up to here are in `_held` or given out
        self._held = ""  # decoded, but may be the beginning of a stop string

    def feed(self, token_ids: Sequence[int], *, last: bool = False) -> str:
        """The new text that these ids make certain; `last` gives out all that is left."""
        self._ids += token_ids
        before = self._decode(self._ids[self._from : self._settled])
        now = self._decode(self._ids[self._from :])
        if now.endswith(REPLACEMENT) and not last:
            return ""
        self._held += now[len(before) :]
        self._from = self._settled
        self._settled = len(self._ids)
        return self._release(last=last)

    def _decode(self, ids: list[int]) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))

    def _release(self, *, last: bool) -> str:
        found = [at for at in (self._held.find(stop) for stop in self.stop) if at >= 0]
        if found:
            self.stopped = True
            piece, self._held = self._held[: min(found)], ""
        else:
            keep = 0 if last else max((overlap(self._held, stop) for stop in self.stop), default=0)
            cut = len(self._held) - keep
            piece, self._held = self._held[:cut], self._held[cut:]
        self.text += piece
        return piece


def overlap(text: str, stop: str) -> int:
    """How many characters at the end of `text` begin `stop`."""
    for size in range(min(len(text), len(stop) - 1), 0, -1):
        if stop.startswith(text[-size:]):
            return size
    return 0
