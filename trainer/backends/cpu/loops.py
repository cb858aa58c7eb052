"""All layers of a Llama decoder on a CPU in one call, shared by as many threads as there are.

A decoding step is hundreds of small products whose weights are read from memory once. The norms,
rotations and sums between them take a few microseconds each, less than torch needs to start an
operation and OpenMP to wake its threads. Here a step is one compiled function. Every thread runs
through the same phases; a phase is cut into parts, and a free thread takes the next part. No thread
waits for one that has not begun, so a thread that the system suspends between two parts does not
delay the others.

Weights are packed in tiles of 32 outputs (vectors.py). A tile meets eight rows at a time, whose
sums stay in registers. Each row's sums are taken in the same order, independent of the number of
rows and threads: a row's scores are bit for bit the same alone, in any batch, read in chunks or at
once.
"""

from numba.np.numpy_support import carray

from trainer.backends.cpu.atomics import unowned
from trainer.backends.cpu.fused import Array, compiled, narrow
from trainer.backends.cpu.phases import (
    DOWN,
    GATE_UP,
    HEAD,
    ONLY,
    OUT,
    QKV,
    Adapters,
    Shape,
    Weights,
    Work,
    attend,
    claim,
    columns,
    done,
    finished,
    low,
    norm,
    parts_of,
    product_of,
    rotate,
)
from trainer.backends.cpu.vectors import TILE, pointer

#: Phases of a layer, and of the head.
PHASES, HEAD_PHASES = 12, 2


@compiled
def forward(
    control: Array,
    weights: Weights,
    adapters: Adapters,
    shape: Shape,
    tokens: Array,
    cos: Array,
    sin: Array,
    caches: Array,
    all_tokens: Array,
    wanted: Array,
    work: Work,
    scores: Array,
) -> None:
    """Take `work.hidden`, the embeddings of T tokens, through all layers.

    `tokens` (T, 2) are each one's row of the cache and position; those of one row follow upon what
    it has, in order. `cos`, `sin` (T, size) fp32 of their positions. `caches` (layers, 2):
    addresses of a layer's keys and values (rows, groups, positions, size), into which theirs are
    written. `all_tokens` (T,) are all tokens' numbers, `wanted` (N,) those whose `scores` (N, V)
    are computed. Every thread makes the same call, with the same fresh `control`.
    """
    _layers(
        unowned(control),
        unowned(weights),
        unowned(adapters),
        shape,
        unowned(tokens),
        unowned(cos),
        unowned(sin),
        unowned(caches),
        unowned(all_tokens),
        unowned(wanted),
        unowned(work),
        unowned(scores),
    )


@compiled
def _layers(
    control: Array,
    w: Weights,
    adapters: Adapters,
    shape: Shape,
    tokens: Array,
    cos: Array,
    sin: Array,
    caches: Array,
    all_tokens: Array,
    wanted: Array,
    work: Work,
    scores: Array,
) -> None:
    hidden, normed, heads, attended = work.hidden, work.normed, work.heads, work.attended
    has_adapters, eps, parts = adapters.spans.shape[0] > 0, shape.eps, shape.parts
    cached = (shape.rows, shape.groups, shape.positions, shape.size)
    at = 0  # the phase
    for n in range(w.qkv.shape[0]):
        keys = carray(pointer(caches[n, 0], w.qkv), cached)
        values = carray(pointer(caches[n, 1], w.qkv), cached)
        norm(control, at, hidden, all_tokens, w.norms[2 * n], eps, normed)
        if has_adapters:
            at += 1
            low(control, at, n, QKV, normed, w.qkv, adapters, work)
        at += 1
        product_of(control, at, n, QKV, normed, w.qkv, w.qkv_bias, adapters, parts, work, heads)
        at += 1
        rotate(control, at, heads, tokens, cos, sin, shape, keys, values)
        at += 1
        attend(control, at, heads, tokens, shape, keys, values, w.windows[n], attended)
        if has_adapters:
            at += 1
            low(control, at, n, OUT, attended, w.out, adapters, work)
        at += 1
        product_of(control, at, n, OUT, attended, w.out, w.out_bias, adapters, parts, work, hidden)
        at += 1
        norm(control, at, hidden, all_tokens, w.norms[2 * n + 1], eps, normed)
        if has_adapters:
            at += 1
            low(control, at, n, GATE_UP, normed, w.gate_up, adapters, work)
        at += 1
        product_of(
            control,
            at,
            n,
            GATE_UP,
            normed,
            w.gate_up,
            w.gate_up_bias,
            adapters,
            parts,
            work,
            work.gate_up,
        )
        if has_adapters:
            at += 1
            low(control, at, n, DOWN, work.gated, w.down, adapters, work)
        at += 1
        product_of(
            control,
            at,
            n,
            DOWN,
            work.gated,
            w.down,
            w.down_bias,
            adapters,
            parts,
            work,
            hidden,
        )
        at += 1
    _scores(control, at, w, shape, wanted, adapters, work, scores)


@compiled
def _scores(
    control: Array,
    phase: int,
    weights: Weights,
    shape: Shape,
    wanted: Array,
    adapters: Adapters,
    work: Work,
    scores: Array,
) -> None:
    """The head's scores of the tokens `wanted`, as the model's type holds them."""
    normed, tiles = work.normed[: wanted.shape[0]], weights.head.shape[1]
    norm(control, phase, work.hidden, wanted, weights.norms[-1], shape.eps, normed)
    each = parts_of(tiles, shape.parts)
    parts = parts_of(tiles, each) if wanted.shape[0] > 0 else 0
    no_adapters = Adapters(adapters.spans[:0], adapters.where[:0], adapters.ranks[:0])
    part = claim(control, phase + 1)
    while part < parts:
        for tile in range(part * each, min((part + 1) * each, tiles)):
            columns(
                ONLY,
                HEAD,
                tile,
                normed,
                weights.head,
                weights.head_bias,
                no_adapters,
                work.low,
                work.last,
            )
        first, stop = part * each * TILE, min((part + 1) * each * TILE, scores.shape[1])
        for i in range(wanted.shape[0]):
            for j in range(first, stop):
                scores[i, j] = narrow(work.last[i, j], scores[0, 0])
        done(control, phase + 1)
        part = claim(control, phase + 1)
    finished(control, phase + 1, parts)
