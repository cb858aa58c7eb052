"""Attention over a packed forest by FlexAttention: one kernel for all segments.

A block mask says which tiles of queries and keys meet, so that what is masked as a whole costs
nothing (Dong et al. 2024, arXiv 2412.05496). The segments of a forest lie in the order of a walk
from the roots, each before those below it. So a query at column i sees the key at column j if
j ≤ i and i lies before the end of what hangs below j's segment: one number a column is the mask of
the whole tree.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from trainer.backends.base import Forest, Layout, Rules, Segment, Span


@dataclass(frozen=True)
class Tree:
    """A forest's mask as tensors. Keys are the stored columns (S), then the forest's own (T).

    `until` (T,) is the column where what hangs below a column's segment ends; `segment` (T,) the
    segment of a column; `seen` (segments, S) which stored columns a segment sees; `queries` (T,)
    and `keys` (S + T,) are positions in a row.
    """

    until: Tensor
    segment: Tensor
    seen: Tensor
    queries: Tensor
    keys: Tensor

    @property
    def stored(self) -> int:
        """Return S."""
        return self.seen.shape[1]

    def sees(self, window: int | None) -> Callable[[Any, Any, Tensor, Tensor], Tensor]:
        """Return FlexAttention's mask function of (batch, head, query, key)."""
        last = max(self.stored - 1, 0)

        def mask(batch: Any, head: Any, query: Tensor, key: Tensor) -> Tensor:
            own = key - self.stored
            column = own.clamp(min=0)
            found = (own >= 0) & (column <= query) & (query < self.until[column])
            if self.stored:
                old = self.seen[self.segment[query], key.clamp(max=last)]
                found = found | ((own < 0) & old)
            if window is not None:
                found = found & (self.queries[query] - self.keys[key] < window)
            return found

        return mask


def tree_of(forest: Forest, stored: int, device: torch.device) -> Tree:
    """Return the mask of a forest whose segments refer to `stored` columns of an earlier stream."""
    until = [segment.span.stop for segment in forest.segments]
    index = {segment.span: number for number, segment in enumerate(forest.segments)}
    seen = torch.zeros(len(until), stored, dtype=torch.bool)
    old_positions = torch.zeros(stored, dtype=torch.long)
    for number, segment in enumerate(forest.segments):
        for above in segment.above:
            until[index[above]] = max(until[index[above]], segment.span.stop)
        place = 0
        for span in segment.stored:
            seen[number, span.start : span.stop] = True
            end = place + span.length
            old_positions[span.start : span.stop] = torch.arange(place, end)
            place = end
    lengths = torch.tensor([segment.span.length for segment in forest.segments])
    numbers = torch.arange(len(until)).repeat_interleave(lengths)
    positions = torch.tensor(forest.positions)
    return Tree(
        until=torch.tensor(until)[numbers].to(device),
        segment=numbers.to(device),
        seen=seen.to(device),
        queries=positions.to(device),
        keys=torch.cat([old_positions, positions]).to(device),
    )


def supports(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Return whether FlexAttention computes this: it has no gradient on CPUs."""
    trains = query.requires_grad or key.requires_grad or value.requires_grad
    return query.device.type == "cuda" or not trains


def probe(query: Tensor, key: Tensor, rules: Rules) -> None:
    """Compute attention like this one, and its gradient, on a few tokens: the kernel of the
    backward pass is compiled when it is first needed. Raises what the compiler raises."""
    length = 160
    segments = (Segment(Span(0, 140), 0), Segment(Span(140, length), 140, above=(Span(0, 140),)))
    tree = Forest((0,) * length, tuple(range(length)), segments, ())
    sizes = [(states.shape[0], length, states.shape[2]) for states in (query, key, key)]
    with torch.enable_grad():
        q, k, v = (query.new_zeros(size).requires_grad_() for size in sizes)
        attend(q, k, v, Layout(tree), None, rules).sum().backward()


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: Layout,
    stored: tuple[Tensor, Tensor] | None,
    rules: Rules,
) -> Tensor:
    """Return attention (T, H, D) from queries (H, T, D), keys and values (G, T, D), and `stored`
    keys and values (G, S, D) of an earlier stream. Differentiable on CUDA."""
    if stored is not None:
        key, value = torch.cat([stored[0], key], dim=1), torch.cat([stored[1], value], dim=1)
    mask: BlockMask = layout.derived(_maker(key.shape[1], query.device, rules.window))
    cap = rules.softcap
    flex = _compiled() if query.device.type == "cuda" else flex_attention
    found: Tensor = flex(
        query[None],
        key[None],
        value[None],
        score_mod=None if cap is None else _capped(cap),
        block_mask=mask,
        scale=rules.scale,
        enable_gqa=query.shape[0] != key.shape[0],
    )
    return found[0].transpose(0, 1)


@cache
def _maker(keys: int, device: torch.device, window: int | None) -> Callable[[Forest], BlockMask]:
    """Return a function that makes a forest's block mask: always the same one for the same
    arguments, so that a layout makes each mask once for all its layers."""

    def make(forest: Forest) -> BlockMask:
        tree = tree_of(forest, keys - forest.length, device)
        sees = tree.sees(window)
        return create_block_mask(sees, None, None, forest.length, keys, device=device)

    return make


@cache
def _capped(cap: float) -> Callable[..., Tensor]:
    """Return the score function of soft-capping: cached, or each call would compile it again."""

    def capped(score: Tensor, batch: Any, head: Any, query: Any, key: Any) -> Tensor:
        return cap * torch.tanh(score / cap)

    return capped


@cache
def _compiled() -> Any:
    """Return FlexAttention's kernels for any lengths; uncompiled it would hold all scores."""
    return torch.compile(flex_attention, dynamic=True)
