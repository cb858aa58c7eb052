"""Helpers for intrinsics that are written in LLVM's own instructions (vectors.py, atomics.py)."""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils
from numba.extending import intrinsic

I32 = ir.IntType(32)
BYTES = ir.IntType(8).as_pointer()


def intrinsic_of(function: Callable[..., Any]) -> Any:
    """Return a numba intrinsic of a function that generates LLVM instructions (typed, for mypy)."""
    return intrinsic(function)


def external(builder: Any, name: str, result: Any, *given: Any) -> Any:
    """Declare a function of LLVM or of the C library."""
    return cgutils.get_or_insert_function(builder.module, ir.FunctionType(result, given), name)


def array_struct(context: Any, builder: Any, kind: Any, array: Any) -> Any:
    """Return numba's structure of an array: data, shape, owner."""
    return context.make_array(kind)(context, builder, array)


def array_data(context: Any, builder: Any, kind: Any, array: Any) -> Any:
    """Return the pointer to an array's first value."""
    return array_struct(context, builder, kind, array).data
