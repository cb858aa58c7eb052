"""Vector operations of the engine's compiled loops (phases.py), written in LLVM's instructions.

No compiler keeps the sums of eight rows in registers when it is given loops over arrays. Vectors
have sixteen fp32 values; LLVM splits them into what the processor has.
"""

import os
from collections.abc import Callable
from itertools import chain
from typing import Any

import llvmlite.binding as llvm
import torch
from llvmlite import ir
from numba import types
from numba.core import cgutils
from torch import Tensor
from torch.nn import functional as F

from trainer.backends.cpu.llvm import BYTES, I32, array_data, array_struct, external, intrinsic_of

#: Outputs of a tile: two vectors of sixteen, for each of eight rows.
TILE = 32
#: Values of a vector.
LANES = 16
#: Rows that one pass over a tile takes.
PASSES = (8, 4, 2, 1)
#: Lines of 64 bytes between the weights that are multiplied and those that are sent for.
_AHEAD = 128


def _has(feature: str) -> bool:
    """Return whether compiled code may use a feature, as LLVM names it. NUMBA_CPU_FEATURES, where
    it is set, replaces the processor's own."""
    given = os.environ.get("NUMBA_CPU_FEATURES")
    if given is not None:
        return f"+{feature}" in given.split(",")
    return bool(llvm.get_host_cpu_features().get(feature, False))


#: Whether the processor multiplies pairs of bf16 and sums them in fp32 natively. Everywhere
#: else bf16 weights are widened first, and their inputs stay in fp32.
PAIRS = _has("avx512bf16")
#: Whether registers hold the sums of eight rows of a tile (AVX-512: 32 registers of 16 values).
#: AVX2 and NEON have a quarter of that room: four rows of half a tile.
WIDE_REGISTERS = _has("avx512f")


def pack(weight: Tensor) -> Tensor:
    """Pack (outputs, inputs) fp32 or bf16 into (tiles, ·): tile after tile, in it input after input
    (in bf16 pair after pair) the weights of 32 outputs; zeros fill up the last tile."""
    pair = 2 if weight.dtype == torch.bfloat16 else 1
    weight = F.pad(weight, (0, -weight.shape[1] % 2, 0, -len(weight) % TILE))
    tiles = weight.view(-1, TILE, weight.shape[1] // pair, pair)
    return tiles.permute(0, 2, 1, 3).reshape(len(tiles), -1)


_I64, _FLOAT = ir.IntType(64), ir.FloatType()
_VECTOR, _WORDS = ir.VectorType(_FLOAT, LANES), ir.VectorType(I32, LANES)


class _BFloat(ir.types.Type):
    """LLVM's bf16, which llvmlite does not name."""

    intrinsic_name = "bf16"

    def __str__(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BFloat)

    def __hash__(self) -> int:
        return hash(_BFloat)


_BF16S = ir.VectorType(_BFloat(), 2 * LANES)


def _whole(value: int) -> Any:
    return ir.Constant(_I64, value)


def _zeros() -> Any:
    return ir.Constant(_VECTOR, [0.0] * LANES)


def _fma(builder: Any) -> Any:
    return external(builder, f"llvm.fma.v{LANES}f32", _VECTOR, _VECTOR, _VECTOR, _VECTOR)


def _next(builder: Any, at: Any, count: int) -> Any:
    return builder.gep(at, [_whole(count)])


def _as_vector(builder: Any, at: Any) -> Any:
    return builder.bitcast(at, _VECTOR.as_pointer())


def _broadcast(builder: Any, value: Any, vector: Any) -> Any:
    """Return a value in all places of a vector."""
    nothing = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(nothing, value, ir.Constant(I32, 0))
    return builder.shuffle_vector(first, nothing, ir.Constant(_WORDS, [0] * LANES))


def _vector(builder: Any, kind: Any, at: Any) -> Any:
    """Sixteen stored values, fp32 or bf16, in fp32."""
    if kind == types.float32:
        return builder.load(_as_vector(builder, at), align=4)
    halves = ir.VectorType(ir.IntType(16), LANES)
    found = builder.load(builder.bitcast(at, halves.as_pointer()), align=2)
    wide = builder.shl(builder.zext(found, _WORDS), ir.Constant(_WORDS, [16] * LANES))
    return builder.bitcast(wide, _VECTOR)


def _prefetch(builder: Any, at: Any, *, keep: int) -> None:
    """Prefetch a line of memory; `keep` from 0, to be used once, to 3, for long."""
    bring = external(builder, "llvm.prefetch.p0", ir.VoidType(), BYTES, I32, I32, I32)
    reading = [ir.Constant(I32, word) for word in (0, keep, 1)]
    builder.call(bring, [builder.bitcast(at, BYTES), *reading])


# -- memory


@intrinsic_of
def pointer(_: Any, address: Any, like: Any) -> Any:
    """Return an address as a pointer to values of the type of an array's."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return types.CPointer(like.dtype)(types.int64, like), generate


@intrinsic_of
def fetch(_: Any, array: Any, row: Any) -> Any:
    """Prefetch a row of (P, size)."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        rows = array_struct(context, builder, array, arguments[0])
        size = builder.extract_value(rows.shape, 1)
        line = builder.bitcast(builder.gep(rows.data, [builder.mul(arguments[1], size)]), BYTES)
        stop = builder.mul(size, _whole(array.dtype.bitwidth // 8))
        lines = cgutils.for_range_slice(builder, _whole(0), stop, _whole(64), _I64)
        with lines as (at, _):
            _prefetch(builder, builder.gep(line, [at]), keep=3)
        return context.get_dummy_value()

    return types.void(array, types.intp), generate


# -- products


def _pairs(builder: Any, tile: Any, inputs: list[Any], sums: list[list[Any]], parts: range) -> None:
    """Add a pair of bf16 inputs a row times the pairs of weights of `parts` of 32 outputs: one
    instruction for sixteen outputs. `tile` points to words of 32 bits."""
    name = "llvm.x86.avx512bf16.dpbf16ps.512"
    multiply = external(builder, name, _VECTOR, _VECTOR, _BF16S, _BF16S)
    weights = [
        builder.bitcast(builder.load(_next(builder, tile, part), align=2), _BF16S) for part in parts
    ]
    for at, row in zip(inputs, sums, strict=True):
        pair = builder.load(builder.bitcast(at, I32.as_pointer()), align=2)
        pair = builder.bitcast(_broadcast(builder, pair, _WORDS), _BF16S)
        for place, weight in zip(row, weights, strict=True):
            builder.store(builder.call(multiply, [builder.load(place), weight, pair]), place)


def _widened(
    builder: Any, tile: Any, inputs: list[Any], sums: list[list[Any]], parts: range
) -> None:
    """The same with inputs in fp32: the first of each pair of weights, then the second."""
    words = [builder.load(_next(builder, tile, part), align=2) for part in parts]
    low = [builder.shl(word, ir.Constant(_WORDS, [16] * LANES)) for word in words]
    high = [builder.and_(word, ir.Constant(_WORDS, [0xFFFF0000] * LANES)) for word in words]
    for index, half in enumerate((low, high)):
        weights = [builder.bitcast(word, _VECTOR) for word in half]
        _multiplied(builder, weights, [_next(builder, at, index) for at in inputs], sums)


def _plain(builder: Any, tile: Any, inputs: list[Any], sums: list[list[Any]], parts: range) -> None:
    """The same with weights in fp32: those of the first input, then of the second."""
    for index in range(2):
        words = [_next(builder, tile, 2 * index + part) for part in parts]
        weights = [builder.bitcast(builder.load(word, align=4), _VECTOR) for word in words]
        _multiplied(builder, weights, [_next(builder, at, index) for at in inputs], sums)


def _multiplied(builder: Any, weights: list[Any], inputs: list[Any], sums: list[list[Any]]) -> None:
    for at, row in zip(inputs, sums, strict=True):
        value = _broadcast(builder, builder.load(at, align=4), _VECTOR)
        for place, weight in zip(row, weights, strict=True):
            total = builder.call(_fma(builder), [weight, value, builder.load(place)])
            builder.store(total, place)


def _way(x: Any, tile: Any) -> Callable[..., None]:
    """Return how inputs and weights of these types are multiplied."""
    if tile.dtype == types.float32:
        return _plain
    return _pairs if x.dtype == types.uint16 else _widened


def _pass_of(rows: int, parts: range) -> Any:
    @intrinsic_of
    def one_pass(_: Any, x: Any, row: Any, tile: Any, y: Any, column: Any, adds: Any) -> Any:
        """y[row:, column:] fp32 = x[row:] times `parts` of a packed tile, for `rows` rows; += if
        `adds`."""

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            source, first, weights, target, start, added = arguments
            x_array = array_struct(context, builder, x, source)
            y_array = array_struct(context, builder, y, target)
            w_array = array_struct(context, builder, tile, weights)

            def line(array: Any, number: int) -> Any:
                width = builder.extract_value(array.shape, 1)
                return builder.mul(builder.add(first, _whole(number)), width)

            inputs, outputs = [], []
            for number in range(rows):
                inputs.append(builder.gep(x_array.data, [line(x_array, number)]))
                at = builder.gep(y_array.data, [builder.add(line(y_array, number), start)])
                outputs += [_as_vector(builder, _next(builder, at, part * LANES)) for part in parts]
            sums = [[cgutils.alloca_once(builder, _VECTOR) for _ in parts] for _ in inputs]
            places = list(zip(chain(*sums), outputs, strict=True))
            with builder.if_else(added) as (then, otherwise):
                with then:
                    for place, at in places:
                        builder.store(builder.load(at, align=4), place)
                with otherwise:
                    for place, _ in places:
                        builder.store(_zeros(), place)
            words = builder.bitcast(w_array.data, _WORDS.as_pointer())
            length = builder.extract_value(w_array.shape, 0)
            vectors = _whole(2 * tile.dtype.bitwidth // 16)  # of words, for two inputs
            multiply = _way(x, tile)
            with cgutils.for_range(builder, builder.udiv(length, _whole(2 * TILE))) as loop:
                at = builder.gep(words, [builder.mul(loop.index, vectors)])
                pair = builder.mul(loop.index, _whole(2))
                if parts.start == 0:  # a second pass finds the tile in the cache
                    for number in range(2 * tile.dtype.bitwidth // 16):
                        # used once a step: the cache is for what is used again
                        _prefetch(builder, _next(builder, at, _AHEAD + number), keep=0)
                multiply(builder, at, [builder.gep(begin, [pair]) for begin in inputs], sums, parts)
            for place, at in places:
                builder.store(builder.load(place), at, align=4)
            return context.get_dummy_value()

        return types.void(x, types.intp, tile, y, types.intp, types.boolean), generate

    return one_pass


eight_rows, four_rows, two_rows, one_row = (_pass_of(rows, range(2)) for rows in PASSES)
four_rows_left, four_rows_right = _pass_of(4, range(1)), _pass_of(4, range(1, 2))


# -- attention


def _dots_of(count: int) -> Any:
    @intrinsic_of
    def dots(_: Any, query: Any, keys: Any, first: Any, scale: Any, scores: Any) -> Any:
        """scores[first:] = query (size,) · keys[first:] (P, size) · scale, of `count` keys."""

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            asked = array_data(context, builder, query, arguments[0])
            k_array = array_struct(context, builder, keys, arguments[1])
            out = builder.gep(array_data(context, builder, scores, arguments[4]), [arguments[2]])
            size = builder.extract_value(k_array.shape, 1)
            sums = [cgutils.alloca_once(builder, _VECTOR) for _ in range(count)]
            starts = []
            for number, place in enumerate(sums):
                builder.store(_zeros(), place)
                line = builder.add(arguments[2], _whole(number))
                starts.append(builder.gep(k_array.data, [builder.mul(line, size)]))
            with cgutils.for_range(builder, builder.udiv(size, _whole(LANES))) as loop:
                column = builder.mul(loop.index, _whole(LANES))
                part = _vector(builder, types.float32, builder.gep(asked, [column]))
                for begin, place in zip(starts, sums, strict=True):
                    key = _vector(builder, keys.dtype, builder.gep(begin, [column]))
                    total = builder.call(_fma(builder), [key, part, builder.load(place)])
                    builder.store(total, place)
            add_up = external(
                builder, f"llvm.vector.reduce.fadd.v{LANES}f32", _FLOAT, _FLOAT, _VECTOR
            )
            for number, place in enumerate(sums):
                given = [ir.Constant(_FLOAT, 0.0), builder.load(place)]
                whole = builder.call(add_up, given, fastmath=("reassoc",))
                builder.store(builder.fmul(whole, arguments[3]), _next(builder, out, number))
            return context.get_dummy_value()

        return types.void(query, keys, types.intp, types.float32, scores), generate

    return dots


def _mix_of(vectors: int) -> Any:
    @intrinsic_of
    def mix(_: Any, shares: Any, values: Any, first: Any, stop: Any, column: Any, sums: Any) -> Any:
        """sums[column:] = shares[first:stop] · values[first:stop, column:] of (P, size), for
        `vectors` times sixteen columns."""

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            share = array_data(context, builder, shares, arguments[0])
            v_array = array_struct(context, builder, values, arguments[1])
            out = builder.gep(array_data(context, builder, sums, arguments[5]), [arguments[4]])
            size = builder.extract_value(v_array.shape, 1)
            places = [cgutils.alloca_once(builder, _VECTOR) for _ in range(vectors)]
            for place in places:
                builder.store(_zeros(), place)
            with cgutils.for_range(builder, arguments[3], start=arguments[2]) as loop:
                factor = builder.load(builder.gep(share, [loop.index]))
                factor = _broadcast(builder, factor, _VECTOR)
                line = builder.add(builder.mul(loop.index, size), arguments[4])
                for number, place in enumerate(places):
                    at = builder.gep(v_array.data, [builder.add(line, _whole(LANES * number))])
                    value = _vector(builder, values.dtype, at)
                    total = builder.call(_fma(builder), [value, factor, builder.load(place)])
                    builder.store(total, place)
            for number, place in enumerate(places):
                at = _as_vector(builder, _next(builder, out, LANES * number))
                builder.store(builder.load(place), at, align=4)
            return context.get_dummy_value()

        return types.void(shares, values, types.intp, types.intp, types.intp, sums), generate

    return mix


four_dots, one_dot = _dots_of(4), _dots_of(1)
wide_mix, narrow_mix = _mix_of(4), _mix_of(1)
