"""Loops over tensors, compiled by numba: what trainer/fused.py is written with.

Values are read in the tensor's type (`wide`), computed in fp32 and rounded once (`narrow`). Arrays
are numpy views of tensors, bf16 as uint16 (`view`).
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
import torch
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, overload
from torch import Tensor

Array = np.ndarray[Any, Any]
_F = TypeVar("_F", bound=Callable[..., Any])

#: Sums may be taken in any order, so that they use the whole width of the processor; NaN and
#: infinity are what they are everywhere else.
_FAST = {"reassoc", "contract", "arcp", "nsz"}


def view(tensor: Tensor) -> Array:
    """The tensor's memory as numpy sees it: float32, or bf16 as uint16. Raises TypeError for any
    other type."""
    found = tensor.detach()
    if found.dtype == torch.bfloat16:
        return found.view(torch.uint16).numpy()
    if found.dtype != torch.float32:
        raise TypeError(f"{found.dtype} has no compiled kernels")
    return found.numpy()


def compiled(function: _F) -> _F:
    """Compiled at its first call, kept on disk for the next process where there is a place."""
    options: dict[str, Any] = {"nogil": True, "fastmath": _FAST, "error_model": "numpy"}
    try:
        return cast("_F", njit(cache=True, **options)(function))
    except RuntimeError:  # neither the package nor the home directory can be written to
        return cast("_F", njit(**options)(function))


def inlined(function: _F) -> _F:
    """Written out wherever a compiled function calls it: a loop over a row of 64 is shorter than
    the call of a function that has it."""
    return cast("_F", njit(inline="always", fastmath=_FAST, error_model="numpy")(function))


def _float_of(_: Any, bits: Any) -> Any:
    """The float32 of these 32 bits."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.uint32), generate


as_float: Any = intrinsic(_float_of)


def _bits_of(_: Any, value: Any) -> Any:
    """The 32 bits of a float32."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.IntType(32))

    return types.uint32(types.float32), generate


as_bits: Any = intrinsic(_bits_of)


def wide(value: Any) -> Any:
    """A stored value in fp32."""


def narrow(value: Any, stored: Any) -> Any:
    """An fp32 value as `stored`'s type holds it: bf16 rounds to nearest, ties to even."""


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


_1, _HALF = np.float32(1), np.float32(0.5)


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
