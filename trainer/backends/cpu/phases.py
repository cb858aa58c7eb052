"""The phases that a decoder's layers are made of: products, norms, rotations, attention.

Every thread enters each phase, takes parts of it for as long as there are any (`claim`) and leaves
when all are done. Whatever is written is written by one part alone.
"""

from typing import Any, NamedTuple

import numpy as np
from numba.np.numpy_support import carray

from trainer.backends.cpu.atomics import add, pause, seen, yield_core
from trainer.backends.cpu.fused import Array, compiled, exp, inlined, largest, narrow
from trainer.backends.cpu.vectors import (
    LANES,
    TILE,
    WIDE_REGISTERS,
    eight_rows,
    fetch,
    four_dots,
    four_rows,
    four_rows_left,
    four_rows_right,
    narrow_mix,
    one_dot,
    one_row,
    pointer,
    two_rows,
    wide_mix,
)

#: Tokens of a part where parts are tokens.
_TOKENS = 8
#: int64 a phase in `control`. What is taken and what is done lie on cache lines of their own.
_CONTROL, _DONE = 16, 8
#: Spins of a waiting thread before it yields its core: 50 to 100 µs.
_SPINS = 2000
_0, _1 = np.float32(0), np.float32(1)


class Weights(NamedTuple):
    """A decoder's weights: products (layers, tiles, ·) packed, biases (layers or 0, outputs) fp32,
    norms (2·layers + 1, D) fp32, windows (layers,): how far back attention sees, 0 for everything.

    Outputs of `gate_up` are sixteen of the gate, the same sixteen of up, and so on.
    """

    qkv: Array
    out: Array
    gate_up: Array
    down: Array
    head: Array  # (1, tiles, ·)
    qkv_bias: Array
    out_bias: Array
    gate_up_bias: Array
    down_bias: Array
    head_bias: Array  # (1 or 0, outputs)
    norms: Array
    windows: Array


#: The products by their places in Weights and Adapters; the head, which has one layer, takes none.
#: numpy's numbers, because numba compiles a function again for each of Python's that it is given.
_NUMBERS: list[Any] = [np.int64(number) for number in range(5)]
QKV, OUT, GATE_UP, DOWN, HEAD = _NUMBERS
ONLY = _NUMBERS[0]


class Work(NamedTuple):
    """What T tokens are computed in. Widths of outputs are whole tiles; inputs of products are
    bf16 where the processor multiplies that (vectors.PAIRS), else fp32."""

    hidden: Array  # (T, D) fp32: the residual stream
    normed: Array  # (T, D) input
    heads: Array  # (T, queries + keys + values) fp32
    attended: Array  # (T, heads · size) input
    gate_up: Array  # (T, 2 · F) fp32
    gated: Array  # (T, F) input
    sums: Array  # (T, most ranks) fp32: what an adapter's A makes of an input
    low: Array  # (T, most ranks) input: the same as an input of its B
    last: Array  # (tokens whose scores are wanted, V) fp32


class Adapters(NamedTuple):
    """The adapters of a call: `spans` (S, 2) of the tokens that each has, `where` (S, 4, 2):
    addresses of the packed A and B of all layers, by product, and `ranks` (S, 4): rows of A, in
    whole tiles, 0 where an adapter leaves a product as it is."""

    spans: Array
    where: Array
    ranks: Array


class Shape(NamedTuple):
    """Of the heads, of the cache's layers (rows, groups, positions, size), and how many parts a
    product is cut into."""

    heads: int
    groups: int
    size: int
    rows: int
    positions: int
    scale: float
    eps: float
    parts: int


def control(phases: int) -> Array:
    """Return the counters that the threads of one call share."""
    return np.zeros(phases * _CONTROL, np.int64)


@inlined
def claim(control: Array, phase: int) -> Any:
    """Return the number of the next part, which this thread then owns."""
    return add(control, phase * _CONTROL, 1)


@inlined
def done(control: Array, phase: int) -> None:
    add(control, phase * _CONTROL + _DONE, 1)


@inlined
def finished(control: Array, phase: int, parts: int) -> None:
    """Wait until other threads have finished the parts that they own.

    Parts take some 50 µs, so the wait is usually shorter than a switch to another thread. Where it
    is longer the thread that is waited for has lost its core to other work: give it this one.
    """
    spins = 0
    while seen(control, phase * _CONTROL + _DONE) < parts:
        if spins < _SPINS:
            pause()
            spins += 1
        else:
            yield_core()


@inlined
def parts_of(count: int, each: int) -> Any:
    return (count + each - 1) // each


# -- products


@compiled
def tile_rows(
    x: Array, first: int, stop: int, tile: Array, y: Array, column: int, adds: bool
) -> None:
    """Rows first to stop of x (T, ≥ inputs) times a packed tile, into y (T, ·) fp32 from `column`
    on, or added to what is there."""
    row = first
    if WIDE_REGISTERS:
        while row + 8 <= stop:
            eight_rows(x, row, tile, y, column, adds)
            row += 8
        if row + 4 <= stop:
            four_rows(x, row, tile, y, column, adds)
            row += 4
    else:
        while row + 4 <= stop:
            four_rows_left(x, row, tile, y, column, adds)
            four_rows_right(x, row, tile, y, column, adds)
            row += 4
    if row + 2 <= stop:
        two_rows(x, row, tile, y, column, adds)
        row += 2
    if row < stop:
        one_row(x, row, tile, y, column, adds)


@compiled
def columns(
    layer: int,
    product: int,
    tile: int,
    x: Array,
    packed: Array,
    bias: Array,
    adapters: Adapters,
    low: Array,
    y: Array,
) -> None:
    """One tile of a product with its bias, and what the adapters add to it, into y. What goes back
    into the residual stream is added to it."""
    count, column, tiles = x.shape[0], tile * TILE, packed.shape[1]
    adds, biased = product in (OUT, DOWN), bias.shape[0] > 0
    if biased:
        for t in range(count):
            for j in range(column, min(column + TILE, bias.shape[1])):
                y[t, j] = bias[layer, j] + (y[t, j] if adds else _0)
    tile_rows(x, 0, count, packed[layer, tile], y, column, adds or biased)
    for span in range(adapters.spans.shape[0]):
        rank = adapters.ranks[span, product]
        if rank > 0:
            length = ((layer + 1) * tiles, rank * TILE)
            b = carray(pointer(adapters.where[span, product, 1], packed), length)
            first, stop = adapters.spans[span, 0], adapters.spans[span, 1]
            tile_rows(low, first, stop, b[layer * tiles + tile], y, column, True)


@compiled
def low(
    control: Array,
    phase: int,
    layer: int,
    product: int,
    x: Array,
    packed: Array,
    adapters: Adapters,
    work: Work,
) -> None:
    """What each adapter's A makes of its tokens' inputs, as many as `packed` has."""
    parts = 0
    for span in range(adapters.spans.shape[0]):
        parts += adapters.ranks[span, product] // TILE
    part = claim(control, phase)
    while part < parts:
        span, tile = 0, part
        while tile >= adapters.ranks[span, product] // TILE:
            tile -= adapters.ranks[span, product] // TILE
            span += 1
        tiles, column = adapters.ranks[span, product] // TILE, tile * TILE
        first, stop = adapters.spans[span, 0], adapters.spans[span, 1]
        length = ((layer + 1) * tiles, packed.shape[2])
        a = carray(pointer(adapters.where[span, product, 0], packed), length)
        tile_rows(x, first, stop, a[layer * tiles + tile], work.sums, column, False)
        for t in range(first, stop):
            for j in range(column, column + TILE):
                work.low[t, j] = narrow(work.sums[t, j], work.low[0, 0])
        done(control, phase)
        part = claim(control, phase)
    finished(control, phase, parts)


@compiled
def product_of(
    control: Array,
    phase: int,
    layer: int,
    product: int,
    x: Array,
    packed: Array,
    bias: Array,
    adapters: Adapters,
    parts: int,
    work: Work,
    y: Array,
) -> None:
    """y = x · W + bias and what the adapters add; of OUT and DOWN y += the same. Of the gate and
    up it is `work.gated` = silu(gate) · up that is wanted."""
    tiles = packed.shape[1]
    each = parts_of(tiles, parts)
    parts = parts_of(tiles, each)
    # sixteen, which the compiler must not know: it would write out the loop over them one by one
    # instead of taking them all at once
    half = work.gated.shape[1] * TILE // work.gate_up.shape[1]
    part = claim(control, phase)
    while part < parts:
        for tile in range(part * each, min((part + 1) * each, tiles)):
            columns(layer, product, tile, x, packed, bias, adapters, work.low, y)
            if product == GATE_UP:
                for t in range(x.shape[0]):
                    both, gated = y[t, tile * TILE :], work.gated[t, tile * LANES :]
                    for j in range(half):
                        share = _1 / (_1 + exp(-both[j]))
                        gated[j] = narrow(both[j] * share * both[half + j], gated[0])
        done(control, phase)
        part = claim(control, phase)
    finished(control, phase, parts)


# -- between the products


@compiled
def norm(
    control: Array, phase: int, hidden: Array, tokens: Array, weight: Array, eps: float, y: Array
) -> None:
    """y[i] = RMSNorm(hidden[tokens[i]]) · weight (D,)."""
    count, width = tokens.shape[0], weight.shape[0]
    parts = parts_of(count, _TOKENS)
    part = claim(control, phase)
    while part < parts:
        for i in range(part * _TOKENS, min((part + 1) * _TOKENS, count)):
            h = hidden[tokens[i]]
            squares = _0
            for j in range(width):
                squares += h[j] * h[j]
            scale = _1 / np.sqrt(squares / np.float32(width) + np.float32(eps))
            for j in range(width):
                y[i, j] = narrow(h[j] * scale * weight[j], y[0, 0])
        done(control, phase)
        part = claim(control, phase)
    finished(control, phase, parts)


@compiled
def rotate(
    control: Array,
    phase: int,
    heads: Array,
    tokens: Array,
    cos: Array,
    sin: Array,
    shape: Shape,
    keys: Array,
    values: Array,
) -> None:
    """Rotate queries by their positions in place; write rotated keys and values to the cache."""
    count, size, half = tokens.shape[0], shape.size, shape.size // 2
    parts = parts_of(count, _TOKENS)
    part = claim(control, phase)
    while part < parts:
        for t in range(part * _TOKENS, min((part + 1) * _TOKENS, count)):
            row, position = tokens[t, 0], tokens[t, 1]
            for h in range(shape.heads + shape.groups):
                head = heads[t, h * size : (h + 1) * size]
                for j in range(half):
                    a, b = head[j], head[half + j]
                    head[j] = a * cos[t, j] - b * sin[t, j]
                    head[half + j] = b * cos[t, half + j] + a * sin[t, half + j]
            for g in range(shape.groups):
                first = (shape.heads + g) * size
                key, value = heads[t, first:], heads[t, first + shape.groups * size :]
                for j in range(size):
                    keys[row, g, position, j] = narrow(key[j], keys[0, 0, 0, 0])
                    values[row, g, position, j] = narrow(value[j], keys[0, 0, 0, 0])
        done(control, phase)
        part = claim(control, phase)
    finished(control, phase, parts)


@compiled
def attend(
    control: Array,
    phase: int,
    heads: Array,
    tokens: Array,
    shape: Shape,
    keys: Array,
    values: Array,
    window: int,
    attended: Array,
) -> None:
    """softmax(q · k · scale) · v of each token and group over what its row has so far."""
    size, count = shape.size, shape.heads // shape.groups
    scale = np.float32(shape.scale)
    shares, sums = np.empty(shape.positions, np.float32), np.empty(size, np.float32)
    parts = tokens.shape[0] * shape.groups
    part = claim(control, phase)
    while part < parts:
        t, g = part // shape.groups, part % shape.groups
        stop = tokens[t, 1] + 1
        start = max(stop - window, 0) if window > 0 else 0
        key, value = keys[tokens[t, 0], g], values[tokens[t, 0], g]
        for h in range(g * count, (g + 1) * count):
            query = heads[t, h * size : (h + 1) * size]
            p = start
            while p + 4 <= stop:
                if h == g * count:  # values are prefetched while scores are computed
                    for soon in range(p, p + 4):
                        fetch(value, soon)
                four_dots(query, key, p, scale, shares)
                p += 4
            while p < stop:
                one_dot(query, key, p, scale, shares)
                p += 1
            row = shares[start:stop]
            highest, total = largest(row), _0
            for p in range(row.shape[0]):
                row[p] = exp(row[p] - highest)
                total += row[p]
            j = 0
            while j + 4 * LANES <= size:
                wide_mix(shares, value, start, stop, j, sums)
                j += 4 * LANES
            while j < size:
                narrow_mix(shares, value, start, stop, j, sums)
                j += LANES
            out, whole = attended[t, h * size :], _1 / total
            for j in range(size):
                out[j] = narrow(sums[j] * whole, out[0])
        done(control, phase)
        part = claim(control, phase)
    finished(control, phase, parts)
