"""Keys and values of answers that are done: a conversation's next turn goes on from them."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

import torch
from torch import Tensor

from trainer.backends.kv_cache import Layers

#: Positions that are kept at most (390 MB for SmolLM2-135M in bfloat16).
TURN_POSITIONS = 16_384
#: Shorter beginnings are not worth a prefill of their own.
MIN_SHARED = 32


@dataclass(frozen=True)
class Kept:
    """What was read and written, and what the layers made of it."""

    slot: int
    ids: Tensor
    layers: Layers


class Turns:
    """At most `positions` of them, least recently used forgotten first. One thread owns it.

    Entries belong to an adapter's slot: no adapter, nor the base, sees another's.
    """

    def __init__(self, positions: int = TURN_POSITIONS) -> None:
        self.positions = 0
        self._limit = positions
        self._kept: OrderedDict[int, Kept] = OrderedDict()
        self._numbers = count()

    def keep(self, slot: int, ids: Sequence[int], layers: Layers) -> None:
        """Remembers an answer in place of whatever it began with."""
        fresh = Kept(slot, torch.tensor(ids), layers)
        if not MIN_SHARED <= len(fresh.ids) <= self._limit:
            return
        for number, old in list(self._kept.items()):
            if old.slot == slot and shared(old.ids, fresh.ids) == len(old.ids):
                self._forget(number)
        self._kept[next(self._numbers)] = fresh
        self.positions += len(fresh.ids)
        while self.positions > self._limit:
            self._forget(next(iter(self._kept)))

    def find(self, slot: int, prompt: Sequence[int]) -> tuple[int, Layers]:
        """How many tokens of `prompt` are known under this slot, and their keys and values.

        One token at least is left to be read: its scores are what the answer begins with.
        """
        wanted = torch.tensor(prompt[:-1])
        lengths = {
            number: shared(kept.ids, wanted)
            for number, kept in self._kept.items()
            if kept.slot == slot
        }
        best = max(lengths, key=lambda number: lengths[number], default=None)
        if best is None or lengths[best] < MIN_SHARED:
            return 0, ()
        self._kept.move_to_end(best)
        length = lengths[best]
        layers = self._kept[best].layers
        return length, [(k[:, :, :length], v[:, :, :length]) for k, v in layers]

    def forget(self, slot: int) -> None:
        """Drops what an adapter left that is gone."""
        for number in [number for number, kept in self._kept.items() if kept.slot == slot]:
            self._forget(number)

    def _forget(self, number: int) -> None:
        self.positions -= len(self._kept.pop(number).ids)


def shared(first: Tensor, second: Tensor) -> int:
    """How many tokens (T,) two texts begin with in common."""
    length = min(len(first), len(second))
    differ = (first[:length] != second[:length]).nonzero()
    return int(differ[0]) if len(differ) else length
