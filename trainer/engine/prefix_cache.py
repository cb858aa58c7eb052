"""Cache the keys and values of finished answers for the next turn of a conversation."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

import torch
from torch import Tensor

from trainer.backends.kv_cache import Layers
from trainer.engine.cache_limits import HOST_PREFIXES

#: Shorter shared prefixes do not pay for a prefill of their own.
MIN_SHARED = 32


@dataclass(frozen=True)
class Entry:
    """Token ids of a prompt and its answer, and their keys and values."""

    slot: int
    ids: Tensor
    layers: Layers


class PrefixCache:
    """At most `positions` positions, the least recently used removed first. Not thread-safe.

    Entries belong to an adapter's slot and are never used for another adapter or the base.
    """

    def __init__(self, positions: int = HOST_PREFIXES) -> None:
        self.positions = 0
        self._limit = positions
        self._entries: OrderedDict[int, Entry] = OrderedDict()
        self._numbers = count()

    def store(self, slot: int, ids: Sequence[int], layers: Layers) -> None:
        """Store an entry; it replaces entries that are a prefix of it."""
        fresh = Entry(slot, torch.tensor(ids), layers)
        if not MIN_SHARED <= len(fresh.ids) <= self._limit:
            return
        for number, old in list(self._entries.items()):
            if old.slot == slot and common_length(old.ids, fresh.ids) == len(old.ids):
                self._remove(number)
        self._entries[next(self._numbers)] = fresh
        self.positions += len(fresh.ids)
        while self.positions > self._limit:
            self._remove(next(iter(self._entries)))

    def find(self, slot: int, prompt: Sequence[int]) -> tuple[int, Layers]:
        """Return how many tokens of `prompt` are cached for this slot, and their keys and values.

        At least the last token is never taken from the cache: its scores give the first token of
        the answer.
        """
        wanted = torch.tensor(prompt[:-1])
        lengths = {
            number: common_length(entry.ids, wanted)
            for number, entry in self._entries.items()
            if entry.slot == slot
        }
        best = max(lengths, key=lambda number: lengths[number], default=None)
        if best is None or lengths[best] < MIN_SHARED:
            return 0, ()
        self._entries.move_to_end(best)
        length = lengths[best]
        layers = self._entries[best].layers
        return length, [(k[:, :, :length], v[:, :, :length]) for k, v in layers]

    def drop(self, slot: int) -> None:
        """Remove the entries of an adapter that was unloaded."""
        for number in [number for number, entry in self._entries.items() if entry.slot == slot]:
            self._remove(number)

    def _remove(self, number: int) -> None:
        self.positions -= len(self._entries.pop(number).ids)


def common_length(first: Tensor, second: Tensor) -> int:
    """Return the length of the common prefix of two sequences of token ids, (T,) each."""
    length = min(len(first), len(second))
    differ = (first[:length] != second[:length]).nonzero()
    return int(differ[0]) if len(differ) else length
