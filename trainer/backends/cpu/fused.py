"""The operations between the matrix products on a CPU, each in one pass over memory.

torch runs a norm, a gate or a softmax as five to ten operations, each of which reads and writes the
whole tensor; in bf16 that is a third of a training step. Here they are loops compiled by numba:
values are read in the tensor's type, computed in fp32 and rounded once. Each call runs on the core
that makes it and lets other threads go on (trainer/forward/parallel.py). Arrays are numpy views
of tensors, bf16 as uint16 (`view`).
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
import torch
from numba import njit, types
from numba.extending import intrinsic, overload
from torch import Tensor

from trainer.backends.cpu.compiled_code import make_directory

Array = np.ndarray[Any, Any]
_F = TypeVar("_F", bound=Callable[..., Any])

#: Sums may be taken in any order, so that they use the whole width of the processor; NaN and
#: infinity are what they are everywhere else.
_OPTIONS: Any = {"fastmath": {"reassoc", "contract", "arcp", "nsz"}, "error_model": "numpy"}


def view(tensor: Tensor) -> Array:
    """Return the tensor's memory as a numpy array: float32, or bf16 as uint16. Raises TypeError for
    any other type."""
    found = tensor.detach()
    if found.dtype == torch.bfloat16:
        return found.view(torch.uint16).numpy()
    if found.dtype != torch.float32:
        raise TypeError(f"{found.dtype} has no compiled kernels")
    return found.numpy()


_DIRECTORY = make_directory()
if _DIRECTORY is not None:
    numba.config.CACHE_DIR = str(_DIRECTORY)  # type: ignore[attr-defined]  # made at run time


def compiled(function: _F) -> _F:
    """Return the function compiled: at its first call, or as an earlier process left it on disk."""
    return cast("_F", njit(cache=_DIRECTORY is not None, nogil=True, **_OPTIONS)(function))


def inlined(function: _F) -> _F:
    """Written out wherever a compiled function calls it: a loop over a row of 64 is shorter than
    the call of a function that has it."""
    return cast("_F", njit(inline="always", **_OPTIONS)(function))


def _bitcast(source: Any, target: Any) -> Any:
    """Return the bits of a value of one type as a value of another."""

    def typed(_: Any, value: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.bitcast(arguments[0], context.get_value_type(target))

        return target(source), generate

    return intrinsic(typed)


as_float = _bitcast(types.uint32, types.float32)
as_bits = _bitcast(types.float32, types.uint32)


def wide(value: Any) -> Any:
    """Return a stored value in fp32."""


def narrow(value: Any, stored: Any) -> Any:
    """Return an fp32 value as `stored`'s type holds it: bf16 rounds to nearest, ties to even."""


@overload(wide, strict=False)
def _(value: Any) -> Any:
    if value == types.uint16:
        return lambda value: as_float(np.uint32(value) << np.uint32(16))
    return lambda value: value


@overload(narrow, strict=False)
def _(value: Any, stored: Any) -> Any:
    if stored == types.uint16:

        def rounded(value: Any, stored: Any) -> Any:
            bits = as_bits(value)
            odd = (bits >> np.uint32(16)) & np.uint32(1)
            return np.uint16((bits + np.uint32(0x7FFF) + odd) >> np.uint32(16))

        return rounded
    return lambda value, stored: value


_0, _1, _HALF = np.float32(0), np.float32(1), np.float32(0.5)


@inlined
def exp(x: Any) -> Any:
    """e^x in fp32 within two units in the last place, NaN for NaN; without a branch or a call, so
    that it runs at the processor's full width. Reduction and polynomial: Cephes' expf (Moshier)."""
    x = np.float32(-87.0) if x < np.float32(-87.0) else x
    x = np.float32(88.0) if x > np.float32(88.0) else x
    n = np.floor(x * np.float32(1.44269504) + _HALF)
    r = x - n * np.float32(0.693359375) + n * np.float32(2.12194440e-4)
    p = np.float32(1.9875691500e-4)
    p = p * r + np.float32(1.3981999507e-3)
    p = p * r + np.float32(8.3334519073e-3)
    p = p * r + np.float32(4.1665795894e-2)
    p = p * r + np.float32(1.6666665459e-1)
    p = p * r + np.float32(5.0000001201e-1)
    power = as_float(np.uint32(np.int32(n) + np.int32(127)) << np.uint32(23))
    return (p * r * r + r + _1) * power


@compiled
def norm_forward(
    h: Array, delta: Array, weight: Array, eps: float, total: Array, y: Array, scales: Array
) -> None:
    """total = h + delta (T, D), y = RMSNorm(total)·weight, scales (T,) fp32 = 1/rms."""
    length, width = h.shape
    for i in range(length):
        squares = _0
        for j in range(width):
            total[i, j] = narrow(wide(h[i, j]) + wide(delta[i, j]), h[i, j])
            squares += wide(total[i, j]) * wide(total[i, j])
        scale = _1 / np.sqrt(squares / np.float32(width) + np.float32(eps))
        scales[i] = scale
        for j in range(width):
            # rounded before the weight comes in, as transformers does
            plain = wide(narrow(wide(total[i, j]) * scale, h[i, j]))
            y[i, j] = narrow(plain * wide(weight[j]), h[i, j])


@compiled
def norm_backward(
    d_y: Array, d_total: Array, total: Array, weight: Array, scales: Array, d_h: Array
) -> None:
    """Gradient (T, D) by h, and as well by delta: what comes through the norm and what comes past
    it, `d_total`."""
    length, width = total.shape
    for i in range(length):
        scale = scales[i]
        dot = _0
        for j in range(width):
            dot += wide(d_y[i, j]) * wide(weight[j]) * wide(total[i, j])
        factor = dot * scale * scale * scale / np.float32(width)
        for j in range(width):
            through = wide(d_y[i, j]) * wide(weight[j]) * scale - wide(total[i, j]) * factor
            d_h[i, j] = narrow(through + wide(d_total[i, j]), total[i, j])


@compiled
def gate_forward(gate: Array, up: Array, y: Array) -> None:
    """silu(gate)·up, all (T, D)."""
    length, width = gate.shape
    for i in range(length):
        for j in range(width):
            x = wide(gate[i, j])
            y[i, j] = narrow(x / (_1 + exp(-x)) * wide(up[i, j]), gate[i, j])


@compiled
def gate_backward(d_y: Array, gate: Array, up: Array, d_gate: Array, d_up: Array) -> None:
    """Gradients of gate_forward, all (T, D)."""
    length, width = gate.shape
    for i in range(length):
        for j in range(width):
            x, slope = wide(gate[i, j]), wide(d_y[i, j])
            share = _1 / (_1 + exp(-x))
            silu = x * share
            d_up[i, j] = narrow(slope * silu, gate[i, j])
            inner = slope * wide(up[i, j]) * (share + silu * (_1 - share))
            d_gate[i, j] = narrow(inner, gate[i, j])


@inlined
def _rotate(heads: Array, cos: Array, sin: Array, rotated: Array) -> None:
    """One head (D,) rotated by cos and sin (D,): rotary positions in halves, as Llama has them."""
    half = heads.shape[0] // 2
    low, high = heads[:half], heads[half:]
    for j in range(half):
        a, b = wide(low[j]), wide(high[j])
        rotated[j] = narrow(a * wide(cos[j]) - b * wide(sin[j]), rotated[0])
    rotated = rotated[half:]
    cos, sin = cos[half:], sin[half:]
    for j in range(half):
        a, b = wide(low[j]), wide(high[j])
        rotated[j] = narrow(b * wide(cos[j]) + a * wide(sin[j]), rotated[0])


@inlined
def _rotate_back(rotated: Array, cos: Array, sin: Array, heads: Array) -> None:
    """The gradient of _rotate: rotated by as much the other way."""
    half = rotated.shape[0] // 2
    low, high = rotated[:half], rotated[half:]
    cos_high, sin_high = cos[half:], sin[half:]
    for j in range(half):
        a, b = wide(low[j]), wide(high[j])
        heads[j] = narrow(a * wide(cos[j]) + b * wide(sin_high[j]), heads[0])
    heads = heads[half:]
    for j in range(half):
        a, b = wide(low[j]), wide(high[j])
        heads[j] = narrow(b * wide(cos_high[j]) - a * wide(sin[j]), heads[0])


@compiled
def _copy(source: Array, target: Array) -> None:
    for j in range(target.shape[0]):
        target[j] = narrow(wide(source[j]), target[0])


@compiled
def _clear(target: Array) -> None:
    for j in range(target.shape[0]):
        target[j] = narrow(_0, target[0])


@compiled
def pack_heads(heads: Array, cos: Array, sin: Array, segments: Array, stacked: Array) -> None:
    """Heads (T, H, D) → segment after segment (H, padded, D) in the flat `stacked`, rotated by
    their positions' cos and sin (T, D) unless these are empty, zeros where a segment is padded.
    `segments` (N, ·) are forest_attention.Plan's, of which the first four columns are read."""
    _, count, width = heads.shape
    rotates = cos.shape[0] > 0
    for n in range(segments.shape[0]):
        start, length, padded, rows = segments[n, 0], segments[n, 1], segments[n, 2], segments[n, 3]
        for h in range(count):
            at = (rows * count + h * padded) * width
            for t in range(start, start + length):
                if rotates:
                    _rotate(heads[t, h], cos[t], sin[t], stacked[at : at + width])
                else:
                    _copy(heads[t, h], stacked[at : at + width])
                at += width
            _clear(stacked[at : at + (padded - length) * width])


@compiled
def unpack_heads(stacked: Array, cos: Array, sin: Array, segments: Array, heads: Array) -> None:
    """The inverse of pack_heads; with cos and sin rotated back, as a gradient is."""
    _, count, width = heads.shape
    rotates = cos.shape[0] > 0
    for n in range(segments.shape[0]):
        start, length, padded, rows = segments[n, 0], segments[n, 1], segments[n, 2], segments[n, 3]
        for h in range(count):
            at = (rows * count + h * padded) * width
            for t in range(start, start + length):
                if rotates:
                    _rotate_back(stacked[at : at + width], cos[t], sin[t], heads[t, h])
                else:
                    _copy(stacked[at : at + width], heads[t, h])
                at += width


@compiled
def gather_keys(own: Array, stored: Array, segments: Array, pieces: Array, seen: Array) -> None:
    """What each segment sees of keys or values (G, T, D), segment after segment (G, padded, D) in
    the flat `seen`; `pieces` (P, 5) are forest_attention.Plan's."""
    count, _, width = own.shape
    for p in range(pieces.shape[0]):
        n, row, start, length = pieces[p, 0], pieces[p, 1], pieces[p, 3], pieces[p, 4]
        for g in range(count):
            at = (segments[n, 6] * count + g * segments[n, 5] + row) * width
            for t in range(start, start + length):
                source = stored[g, t] if pieces[p, 2] else own[g, t]
                _copy(source, seen[at : at + width])
                at += width
    for n in range(segments.shape[0]):
        for g in range(count):
            at = (segments[n, 6] * count + g * segments[n, 5]) * width
            _clear(seen[at + segments[n, 4] * width : at + segments[n, 5] * width])


@compiled
def scatter_keys(seen: Array, segments: Array, pieces: Array, total: Array) -> None:
    """Add gradients of what segments saw to its columns, `total` (G, T, D) fp32; what an earlier
    stream has stored takes none."""
    count, _, width = total.shape
    for p in range(pieces.shape[0]):
        n, row, start, length = pieces[p, 0], pieces[p, 1], pieces[p, 3], pieces[p, 4]
        if pieces[p, 2]:
            continue
        for g in range(count):
            at = (segments[n, 6] * count + g * segments[n, 5] + row) * width
            for t in range(start, start + length):
                source, target = seen[at : at + width], total[g, t]
                for j in range(width):
                    target[j] += wide(source[j])
                at += width


@compiled
def softmax_forward(scores: Array, segments: Array, count: int, scale: float, window: int) -> None:
    """Replace scores of all segments, (count, padded, seen) each in one flat array, by softmax:
    softmax of scale·score over what a query sees, its own position and `window` − 1 before it at
    most (0: all), zero elsewhere."""
    factor = np.float32(scale)
    powers = np.empty(segments[:, 5].max(), np.float32)
    for n in range(segments.shape[0]):
        length, padded, seen, width = segments[n, 1], segments[n, 2], segments[n, 4], segments[n, 5]
        for h in range(count):
            for i in range(padded):
                at = segments[n, 7] * count + (h * padded + i) * width
                stop = seen - length + i + 1 if i < length else 0
                start = max(stop - window, 0) if window > 0 else 0
                _clear(scores[at : at + start])
                _clear(scores[at + stop : at + width])
                row = scores[at + start : at + stop]
                highest = largest(row)
                total = _0
                for j in range(row.shape[0]):
                    power = exp((wide(row[j]) - highest) * factor)
                    powers[j] = power
                    total += power
                whole = _1 / total
                for j in range(row.shape[0]):
                    row[j] = narrow(powers[j] * whole, row[0])


@compiled
def softmax_backward(
    d_shares: Array, shares: Array, segments: Array, count: int, scale: float, window: int
) -> None:
    """Replace gradients of the softmax by those of unscaled scores, in place."""
    factor = np.float32(scale)
    for n in range(segments.shape[0]):
        length, padded, seen, width = segments[n, 1], segments[n, 2], segments[n, 4], segments[n, 5]
        for h in range(count):
            for i in range(padded):
                at = segments[n, 7] * count + (h * padded + i) * width
                stop = seen - length + i + 1 if i < length else 0
                start = max(stop - window, 0) if window > 0 else 0
                _clear(d_shares[at : at + start])
                _clear(d_shares[at + stop : at + width])
                row, share = d_shares[at + start : at + stop], shares[at + start : at + stop]
                dot = _0
                for j in range(row.shape[0]):
                    dot += wide(row[j]) * wide(share[j])
                for j in range(row.shape[0]):
                    row[j] = narrow((wide(row[j]) - dot) * wide(share[j]) * factor, row[0])


@inlined
def _ordered(bits: Any) -> Any:
    """Return the bits of a float as a whole number that is larger where the float is, and back."""
    whole = np.int32(bits)
    return whole ^ ((whole >> np.int32(31)) & np.int32(0x7FFFFFFF))


@inlined
def largest(row: Array) -> Any:
    """Return the largest value in fp32; NaN where there is one. By whole numbers, because a
    compiler that must mind NaN takes the maximum of floats one by one."""
    highest = np.int32(-(2**31))
    for j in range(row.shape[0]):
        highest = max(highest, _ordered(as_bits(wide(row[j]))))
    return as_float(np.uint32(_ordered(highest)))


@compiled
def logprobs_of(logits: Array, targets: Array, found: Array, slopes: bool) -> None:
    """log softmax of the targets (N,) int64 into found (N,) fp32, from logits (N, V); `slopes`
    replaces the logits by the derivative with respect to them, onehot(target) − softmax."""
    length, width = logits.shape
    powers = np.empty(width, np.float32)
    for i in range(length):
        row = logits[i]
        highest = largest(row)
        total = _0
        for j in range(width):
            power = exp(wide(row[j]) - highest)
            powers[j] = power
            total += power
        target = targets[i]
        found[i] = wide(row[target]) - highest - np.log(total)
        if slopes:
            whole = _1 / total
            for j in range(width):
                row[j] = narrow(-powers[j] * whole, row[0])
            # from fp32 again: one minus what has been rounded would lose a sure target's slope
            row[target] = narrow(_1 - powers[target] * whole, row[0])
