"""Keys and values of prompts and of the running rows, written in place.

transformers' own cache is made for batches that begin and end together and copies itself at every
token and every chunk of a prompt. A prompt's length is known: its memory is taken once. Of the
running rows each has its own length: a row that joins is copied in once, a token is written where
its row ends, and a row that leaves gives its place to the last one.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

from trainer.transfers import on_device

#: (keys, values) of each layer, (1, heads, positions, head size).
Layers = Sequence[tuple[Tensor, Tensor]]

_CHUNK = 128  # positions that are added at a time: growing copies everything


class _PromptLayer(CacheLayerMixin):
    """One layer of a PromptRows: (rows, heads, positions, head size), `filled` of them."""

    is_sliding = False

    def __init__(self, positions: int) -> None:
        super().__init__()
        self.positions = positions
        self.filled = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Take the memory of all positions; layers may differ in their shapes."""
        self.keys, self.values = (
            new.new_empty(*new.shape[:2], self.positions, new.shape[3])
            for new in (key_states, value_states)
        )
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Write the next tokens of every row (B, H, T, D); returns all that is filled."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start, self.filled = self.filled, self.filled + key_states.shape[2]
        self.keys[:, :, start : self.filled] = key_states
        self.values[:, :, start : self.filled] = value_states
        return self.keys[:, :, : self.filled], self.values[:, :, : self.filled]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.filled + query_length, 0

    def get_seq_length(self) -> int:
        return self.filled

    def get_max_length(self) -> int:
        return -1


class PromptRows(Cache):
    """The cache of prompts that are being read together, of at most `positions` tokens. `known` are
    keys and values that they begin with."""

    def __init__(self, positions: int, known: Layers = ()) -> None:
        super().__init__(layer_class_to_replicate=partial(_PromptLayer, positions))
        for index, (keys, values) in enumerate(known):
            self.update(keys, values, index)


class _RowLayer(CacheLayerMixin):
    """One layer of a RowCache: (rows, heads, positions, head size)."""

    is_sliding = False

    def __init__(self, rows: "RowCache", keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self.rows = rows
        self.keys = keys[:0, :, :0]
        self.values = values[:0, :, :0]
        self.is_initialized = True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing to do: made with its shape."""

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Write one token a row (B, H, 1, D) at each row's end; returns what is attended to."""
        where, ends, length = self.rows.where, self.rows.ends, self.rows.attended
        self.keys[where, :, ends] = key_states[:, :, 0]
        self.values[where, :, ends] = value_states[:, :, 0]
        count = key_states.shape[0]
        return self.keys[:count, :, :length], self.values[:count, :, :length]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.rows.attended, 0

    def get_seq_length(self) -> int:
        return self.rows.attended

    def get_max_length(self) -> int:
        return -1

    def grown(self, rows: int, positions: int) -> None:
        self.keys = _grown(self.keys, rows, positions)
        self.values = _grown(self.values, rows, positions)


class RowCache(Cache):
    """The cache of a running batch; `lengths[i]` positions of row i are filled."""

    def __init__(self) -> None:
        super().__init__(layers=[])
        self.layers: list[Any]
        self.lengths: list[int] = []
        self.attended = 0
        self.where = torch.empty(0, dtype=torch.long)
        self.ends = torch.empty(0, dtype=torch.long)

    @classmethod
    def sized(
        cls, layers: int, like: Tensor, rows: int, positions: int, known: Layers = ()
    ) -> "RowCache":
        """Return a cache for prompts that are going to be read; `like` (0, heads, 0, head size),
        `known` of the first one."""
        made = cls()
        made.layers = [_RowLayer(made, like, like) for _ in range(layers)]
        made.reserve(rows, positions)
        for layer, (keys, values) in zip(made.layers, known, strict=False):
            layer.keys[:1, :, : keys.shape[2]] = keys
            layer.values[:1, :, : values.shape[2]] = values
        return made

    def join(self, prefilled: Cache, lengths: Sequence[int]) -> None:
        """Take over the rows of a prefill that was padded on the right."""
        if not self.layers:
            self.layers = [_RowLayer(self, layer.keys, layer.values) for layer in prefilled.layers]
        first, last = len(self.lengths), len(self.lengths) + len(lengths)
        width = max(lengths)
        self.reserve(last, width)
        for layer, new in zip(self.layers, prefilled.layers, strict=True):
            # padding is copied too: it is behind the row's end and never attended to
            layer.keys[first:last, :, :width] = new.keys[: len(lengths), :, :width]
            layer.values[first:last, :, :width] = new.values[: len(lengths), :, :width]
        self.lengths += lengths

    def row(self, row: int) -> list[tuple[Tensor, Tensor]]:
        """Return a copy of one row's keys and values, (1, heads, positions, head size) a layer."""
        length = self.lengths[row]
        return [
            (
                layer.keys[row : row + 1, :, :length].clone(),
                layer.values[row : row + 1, :, :length].clone(),
            )
            for layer in self.layers
        ]

    def leave(self, row: int) -> None:
        """Give the place of a row to the last one."""
        length = self.lengths[-1]
        last = len(self.lengths) - 1
        if row != last:
            for layer in self.layers:
                layer.keys[row, :, :length] = layer.keys[last, :, :length]
                layer.values[row, :, :length] = layer.values[last, :, :length]
            self.lengths[row] = length
        self.lengths.pop()
        if not self.lengths:
            self.layers = []  # an idle engine holds no memory for what a long answer needed

    def begin_step(
        self, dtype: torch.dtype, window: int | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Make room for one token a row; returns positions (B, 1) and two masks (B, 1, 1, L): of
        layers that see everything, and of those that see the last `window` positions."""
        device = self.layers[0].keys.device
        self.attended = max(self.lengths) + 1
        self.reserve(len(self.lengths), self.attended)
        self.ends = on_device(self.lengths, device)
        self.where = torch.arange(len(self.lengths), device=device)
        columns = torch.arange(self.attended, device=device)
        behind = columns > self.ends[:, None]
        far = behind if window is None else behind | (columns <= self.ends[:, None] - window)
        masks = []
        for hidden in (behind, far):
            mask = torch.zeros(hidden.shape, dtype=dtype, device=device)
            mask.masked_fill_(hidden, torch.finfo(dtype).min)
            masks.append(mask[:, None, None, :])
        return self.ends[:, None], masks[0], masks[1]

    def end_step(self) -> None:
        self.lengths = [length + 1 for length in self.lengths]

    def reserve(self, rows: int, positions: int) -> None:
        """Make room for so many rows and positions."""
        have_rows, _, have_positions, _ = self.layers[0].keys.shape
        if rows <= have_rows and positions <= have_positions:
            return
        positions = max(have_positions, -(-positions // _CHUNK) * _CHUNK)
        for layer in self.layers:
            layer.grown(max(rows, have_rows), positions)


def _grown(old: Tensor, rows: int, positions: int) -> Tensor:
    # zeros, not empty: masked positions are multiplied by nought, which does not help against NaN
    new = old.new_zeros(rows, old.shape[1], positions, old.shape[3])
    new[: old.shape[0], :, : old.shape[2]] = old
    return new
