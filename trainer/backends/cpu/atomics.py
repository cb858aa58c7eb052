"""Atomic operations by which the threads of one compiled call divide their work.

numba has none of its own for CPUs, and it counts the references of every slice with one.
"""

import platform
from typing import Any

from llvmlite import ir
from numba import types

from trainer.backends.cpu.llvm import I32, array_data, array_struct, external, intrinsic_of


@intrinsic_of
def add(_: Any, array: Any, index: Any, amount: Any) -> Any:
    """Add to array[index], an int64, atomically; return the previous value."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        at = builder.gep(array_data(context, builder, array, arguments[0]), [arguments[1]])
        return builder.atomic_rmw("add", at, arguments[2], "acq_rel")

    return types.int64(array, types.intp, types.int64), generate


@intrinsic_of
def seen(_: Any, array: Any, index: Any) -> Any:
    """Return array[index] with acquire semantics: what other threads wrote before is visible."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        at = builder.gep(array_data(context, builder, array, arguments[0]), [arguments[1]])
        return builder.load_atomic(at, "acquire", 8)

    return types.int64(array, types.intp), generate


@intrinsic_of
def pause(_: Any) -> Any:
    """Execute the processor's spin-wait hint."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if platform.machine() in ("x86_64", "AMD64"):
            builder.call(external(builder, "llvm.x86.sse2.pause", ir.VoidType()), [])
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic_of
def yield_core(_: Any) -> Any:
    """Yield the core to another thread (sched_yield of POSIX)."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.call(external(builder, "sched_yield", I32), [])
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic_of
def unowned(_: Any, given: Any) -> Any:
    """Return the same array, or tuple of arrays, without counting who uses it: threads that count
    in one place wait for each other at every slice. The caller's own reference must last."""

    def uncounted(context: Any, builder: Any, kind: Any, array: Any) -> Any:
        made = array_struct(context, builder, kind, array)
        for owner in ("meminfo", "parent"):
            setattr(made, owner, ir.Constant(getattr(made, owner).type, None))
        return made._getvalue()

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        (whole,) = arguments
        if isinstance(given, types.Array):
            return uncounted(context, builder, given, whole)
        for number, kind in enumerate(given.types):
            part = builder.extract_value(whole, number)
            whole = builder.insert_value(whole, uncounted(context, builder, kind, part), number)
        return whole

    return given(given), generate
