"""Attention over a packed forest on the CPU: explicit products, the rest compiled.

For rows of a few hundred tokens plain products beat the fused kernels of the CPU, which work
through a mask. All segments of a stream follow each other in one buffer, so that rotation, masking
and softmax take one call each (fused.py) and only the products are computed segment by segment.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from trainer.backends.base import Forest, Layout, Rules
from trainer.backends.cpu import fused
from trainer.backends.cpu.fused import Array, view

#: Queries and keys of a segment are rounded up to a multiple of this. For every new shape of a bf16
#: product a kernel is compiled (half a millisecond) and only some are kept: many short rows of all
#: lengths would have each layer compile all of them again.
_GRAIN = 16


@dataclass(frozen=True)
class Plan:
    """The place of each segment of a stream in the flat buffers of a layer.

    `segments` (N, 8): first column and number of tokens, tokens rounded up, rows before it;
    positions seen, the same rounded up, positions before it; cells of the score matrix before it.
    `pieces` (P, 5): what the segments see, as (segment, first position, whether of the earlier
    stream, first column, length). `rows`, `seen` and `cells` are the sums over segments, for one
    head.
    """

    segments: Array
    pieces: Array
    rows: int
    seen: int
    cells: int

    @classmethod
    def of(cls, forest: Forest) -> Self:
        table, pieces = [], []
        rows = seen = cells = 0
        for number, segment in enumerate(forest.segments):
            end = segment.position + segment.span.length
            padded, width = _rounded(segment.span.length), _rounded(end)
            table.append(
                (segment.span.start, segment.span.length, padded, rows, end, width, seen, cells)
            )
            rows, seen, cells = rows + padded, seen + width, cells + padded * width
            position = 0
            for old, span in (
                *((1, span) for span in segment.stored),
                *((0, span) for span in (*segment.above, segment.span)),
            ):
                pieces.append((number, position, old, span.start, span.length))
                position += span.length
        return cls(np.array(table, np.int64), np.array(pieces, np.int64), rows, seen, cells)

    def queries(self, flat: Tensor, heads: int, groups: int) -> Iterator[Tensor]:
        """Return each segment's part of a buffer of `rows`, (G, H/G · padded, D)."""
        width = flat.numel() // (self.rows * heads)
        sizes = [padded * heads * width for padded in self._column(2)]
        return (part.view(groups, -1, width) for part in flat.split(sizes))

    def keys(self, flat: Tensor, groups: int) -> Iterator[Tensor]:
        """Return each segment's part of a buffer of `seen`, (G, seen, D)."""
        width = flat.numel() // (self.seen * groups)
        sizes = [seen * groups * width for seen in self._column(5)]
        return (part.view(groups, -1, width) for part in flat.split(sizes))

    def scores(self, flat: Tensor, heads: int, groups: int) -> Iterator[Tensor]:
        """Return each segment's part of a buffer of `cells`, (G, H/G · padded, seen)."""
        for part, width in zip(flat.split(self._cells(heads)), self._column(5), strict=True):
            yield part.view(groups, -1, width)

    def _cells(self, heads: int) -> list[int]:
        both = zip(self._column(2), self._column(5), strict=True)
        return [heads * padded * width for padded, width in both]

    def _column(self, number: int) -> list[int]:
        found: list[int] = self.segments[:, number].tolist()
        return found


class Attend(torch.autograd.Function):
    """Queries (T, H, D), keys and values (T, G, D) with H a multiple of G → (T, H, D).

    `cos` and `sin` (T, D) rotate queries and keys to their positions; empty ones: they are rotated
    already. Queries of the heads that share a key head are stacked into one product.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        cos: Tensor,
        sin: Tensor,
        layout: Layout,
        layer: int,
        rules: Rules,
    ) -> Tensor:
        plan, heads, groups = layout.derived(Plan.of), query.shape[1], key.shape[1]
        still = query.new_empty(0, 0)
        rotated, values = _heads_first(key, cos, sin), _heads_first(value, still, still)
        if layout.keep is not None:
            layout.keep.layers[layer] = (rotated, values)
        old = (rotated, values) if layout.stored is None else layout.stored.layers[layer]
        queries = _stacked(query, cos, sin, plan)
        keys, seen = _seen(rotated, old[0], plan), _seen(values, old[1], plan)

        shares = query.new_empty(plan.cells * heads)
        for score, q, k in zip(
            plan.scores(shares, heads, groups),
            plan.queries(queries, heads, groups),
            plan.keys(keys, groups),
            strict=True,
        ):
            torch.bmm(q, k.transpose(1, 2), out=score)
        scale, slopes = rules.scale, None
        if rules.softcap is not None:
            tanh = shares.mul_(scale / rules.softcap).tanh_()
            slopes = (1 - tanh * tanh).mul_(scale)
            shares, scale = tanh * rules.softcap, 1.0
        fused.softmax_forward(view(shares), plan.segments, heads, scale, rules.window or 0)

        found = torch.empty_like(queries)
        for part, share, v in zip(
            plan.queries(found, heads, groups),
            plan.scores(shares, heads, groups),
            plan.keys(seen, groups),
            strict=True,
        ):
            torch.bmm(share, v, out=part)
        out = query.new_empty(query.shape)
        fused.unpack_heads(view(found), view(still), view(still), plan.segments, view(out))
        if any(ctx.needs_input_grad[:3]):
            ctx.save_for_backward(queries, keys, seen, shares, slopes, cos, sin)
            ctx.plan, ctx.scale, ctx.window = plan, scale, rules.window or 0
            ctx.shapes = query.shape, key.shape
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor | None, ...]:
        queries, keys, seen, shares, slopes, cos, sin = ctx.saved_tensors
        plan: Plan = ctx.plan
        (length, heads, width), (_, groups, _) = ctx.shapes
        still = queries.new_empty(0, 0)
        upstream = _stacked(d_out, still, still, plan)
        d_scores = torch.empty_like(shares)
        for d_share, d, v in zip(
            plan.scores(d_scores, heads, groups),
            plan.queries(upstream, heads, groups),
            plan.keys(seen, groups),
            strict=True,
        ):
            torch.bmm(d, v.transpose(1, 2), out=d_share)
        fused.softmax_backward(
            view(d_scores), view(shares), plan.segments, heads, ctx.scale, ctx.window
        )
        if slopes is not None:
            d_scores.mul_(slopes)

        d_queries, d_keys, d_seen = (torch.empty_like(x) for x in (queries, keys, seen))
        for d_score, share, d, q, k, d_q, d_k, d_v in zip(
            plan.scores(d_scores, heads, groups),
            plan.scores(shares, heads, groups),
            plan.queries(upstream, heads, groups),
            plan.queries(queries, heads, groups),
            plan.keys(keys, groups),
            plan.queries(d_queries, heads, groups),
            plan.keys(d_keys, groups),
            plan.keys(d_seen, groups),
            strict=True,
        ):
            torch.bmm(d_score, k, out=d_q)
            torch.bmm(d_score.transpose(1, 2), q, out=d_k)
            torch.bmm(share.transpose(1, 2), d, out=d_v)
        d_query = queries.new_empty(length, heads, width)
        fused.unpack_heads(view(d_queries), view(cos), view(sin), plan.segments, view(d_query))
        d_key = _gathered(d_keys, cos, sin, plan, length, groups)
        return d_query, d_key, _gathered(d_seen, still, still, plan, length, groups), *[None] * 5


def _whole(length: int) -> Array:
    """Return a stream as one segment that is not rounded up: its heads come out as (H, T, D)."""
    return np.array([(0, length, length, 0)], np.int64)


def _heads_first(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """(T, G, D) → (G, T, D), rotated."""
    length, groups, width = heads.shape
    found = heads.new_empty(groups, length, width)
    fused.pack_heads(view(heads), view(cos), view(sin), _whole(length), view(found.view(-1)))
    return found


def _stacked(heads: Tensor, cos: Tensor, sin: Tensor, plan: Plan) -> Tensor:
    """(T, H, D) → the flat buffer of `rows`, rotated."""
    found = heads.new_empty(plan.rows * heads.shape[1] * heads.shape[2])
    fused.pack_heads(view(heads), view(cos), view(sin), plan.segments, view(found))
    return found


def _seen(own: Tensor, stored: Tensor, plan: Plan) -> Tensor:
    """(G, T, D), of this stream and of the earlier one → the flat buffer of `seen`."""
    found = own.new_empty(plan.seen * own.shape[0] * own.shape[2])
    fused.gather_keys(view(own), view(stored), plan.segments, plan.pieces, view(found))
    return found


def _gathered(
    seen: Tensor, cos: Tensor, sin: Tensor, plan: Plan, length: int, groups: int
) -> Tensor:
    """Return gradients of keys or values (T, G, D) from those of `seen`. Several segments add to
    the keys above them: in fp32."""
    width = seen.numel() // (plan.seen * groups)
    total = torch.zeros(groups, length, width, dtype=torch.float32)
    fused.scatter_keys(view(seen), plan.segments, plan.pieces, view(total))
    found = seen.new_empty(length, groups, width)
    fused.unpack_heads(view(total.view(-1)), view(cos), view(sin), _whole(length), view(found))
    return found


def _rounded(size: int) -> int:
    return -(-size // _GRAIN) * _GRAIN
