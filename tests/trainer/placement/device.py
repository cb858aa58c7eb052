"""A device without hardware: a tensor on it refuses to meet a tensor that was left on the CPU, and
every wait of the host for it is counted.

CUDA is slow in one way and wrong in another that no CPU shows: a tensor on the wrong device raises
an error, and a value that the host reads, or a copy from memory that is not pinned, stops the host
until all queued work is done. Here a tensor of torch's PrivateUse1 device wraps a tensor of the
CPU. Every operation runs on the wrapped tensors, so results are those of a CPU; what CUDA refuses
is refused, and what makes CUDA wait is counted.

`torch.utils.backend_registration._setup_privateuseone_for_python_backend` is private: it is torch's
only way to such a device without compiled code, and this module is its only user. It can be called
once a process and changes what torch takes for the accelerator, so use this module in a process of
its own (run.py).
"""

import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import bias
from torch.utils._python_dispatch import (
    TorchDispatchMode,
    _disable_current_modes,
    return_and_correct_aliasing,
)
from torch.utils._pytree import tree_flatten, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "placement"

_aten = torch.ops.aten
#: Operations that bring a value to the host on CUDA, to decide about a shape or a branch.
_READS = {
    _aten._local_scalar_dense.default,
    _aten.nonzero.default,
    _aten.masked_select.default,
    _aten.bincount.default,
    _aten._unique2.default,
    _aten.equal.default,
}
_INDEXED = {_aten.index.Tensor, _aten.index_put.default, _aten.index_put_.default}
_COPIES = {_aten._to_copy.default, _aten.copy_.default}
#: Operations whose attention kernels are chosen by device in C++: here always the formula.
_MATH = 0


class WrongDevice(RuntimeError):
    """An operation was given tensors of the device and of the CPU."""


@dataclass
class Waits:
    """What makes the host wait: values read from the device, and copies to it from memory that is
    not pinned. Each is named by the operation and the line of the trainer that asked for it."""

    reads: list[str] = field(default_factory=list)
    writes: list[str] = field(default_factory=list)


class _Module:
    """What torch expects of a device's module, `torch.placement`."""

    def is_initialized(self) -> bool:
        return True

    def is_available(self) -> bool:
        return True

    def current_device(self) -> int:
        return 0

    def device_count(self) -> int:
        return 1

    def device(self, index: Any) -> AbstractContextManager[None]:
        return nullcontext()

    def manual_seed_all(self, seed: int) -> None:
        """Nothing to do: random numbers are the CPU's."""

    def get_rng_state(self, device: Any = None) -> Tensor:
        return torch.get_rng_state()

    def set_rng_state(self, state: Tensor, device: Any = None) -> None:
        torch.set_rng_state(state)

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]

    def _is_in_bad_fork(self) -> bool:
        return False


class OnDevice(Tensor):
    """A tensor of the device; `held` is the tensor of the CPU that it wraps."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> "OnDevice":
        made: OnDevice = torch.Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            layout=held.layout,
            device=torch.device(NAME, 0),
        )
        made.held = held
        return made

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"OnDevice({self.held!r})"

    def tolist(self) -> Any:
        return self.cpu().tolist()  # torch's own refuses subclasses

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {}, Waits())


class Device(TorchDispatchMode):
    """Inside, tensors can be made on the device; `waits` counts from the start or from `reset`."""

    def __init__(self) -> None:
        super().__init__()
        self.waits = Waits()

    def reset(self) -> Waits:
        """Return what was counted, and start again."""
        found, self.waits = self.waits, Waits()
        return found

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if torch._C._dispatch_has_kernel_for_dispatch_key(
            func.name(), "CompositeImplicitAutograd"
        ):  # in inference mode nothing has taken it apart yet
            with self:
                found = func.decompose(*args, **kwargs)
            if found is not NotImplemented:
                return found
        return _run(func, args, kwargs, self.waits)


def _run(func: Any, args: Any, kwargs: Any, waits: Waits) -> Any:
    # a view of a weight made in inference mode is an ordinary tensor; a wrapper would not be
    with torch.inference_mode(mode=False), torch.no_grad():
        return _run_checked(func, args, kwargs, waits)


def _run_checked(func: Any, args: Any, kwargs: Any, waits: Waits) -> Any:
    if func is _aten._pin_memory.default:
        return _pinned(args[0])
    if func is _aten.is_pinned.default:
        return hasattr(args[0], "is_pinned_here")
    flat = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, Tensor)]
    ours = [x for x in flat if isinstance(x, OnDevice)]
    others = [x for x in flat if not isinstance(x, OnDevice)]
    target = kwargs.get("device")
    to_us = target is not None and torch.device(target).type == NAME
    if not ours and not to_us:
        return func(*args, **kwargs)
    if func is _aten._fused_sdp_choice.default:
        return _MATH
    if func in _COPIES:
        return _copy(func, args, kwargs, waits, to_us=to_us)
    if others and not _may_meet(func, others, waits):
        shapes = [tuple(x.shape) for x in others]
        raise WrongDevice(f"{func} got tensors of the CPU, {shapes}, and of {NAME}: {_line()}")
    if func in _READS or _depends_on_values(func, args, kwargs):
        waits.reads.append(f"{func} {_line()}")
    generator = kwargs.get("generator")
    if generator is not None and to_us and generator.device.type == "cpu":
        raise WrongDevice(f"{func} on {NAME} got a generator of the CPU: {_line()}")
    return _on_held(func, args, kwargs)


def _on_held(func: Any, args: Any, kwargs: Any) -> Any:
    """Run an operation on the wrapped tensors; return its result on the device."""
    inner_args, inner_kwargs = tree_map(
        lambda x: x.held if isinstance(x, OnDevice) else x, (args, kwargs)
    )
    if "device" in inner_kwargs and inner_kwargs["device"] is not None:
        inner_kwargs["device"] = torch.device("cpu")
    found = func(*inner_args, **inner_kwargs)
    found = tree_map(lambda x: OnDevice(x) if isinstance(x, Tensor) else x, found)
    return return_and_correct_aliasing(func, args, kwargs, found)


def _copy(func: Any, args: Any, kwargs: Any, waits: Waits, *, to_us: bool) -> Any:
    """`tensor.to(…)` and `tensor.copy_(…)`, within the device, to it or from it."""
    if func is _aten.copy_.default:
        target, source = args[:2]
        if not isinstance(target, OnDevice):
            waits.reads.append(f"{func} {_line()}")
            target.copy_(source.held)
            return target
        free = isinstance(source, OnDevice) or hasattr(source, "is_pinned_here")
        if not free:
            waits.writes.append(f"{func} {_line()}")
        target.held.copy_(source.held if isinstance(source, OnDevice) else source)
        return target
    source = args[0]
    given = {key: value for key, value in kwargs.items() if key not in ("device", "non_blocking")}
    if not isinstance(source, OnDevice):
        if not (kwargs.get("non_blocking") and hasattr(source, "is_pinned_here")):
            waits.writes.append(f"{func} {_line()}")
        return OnDevice(func(source, **given))
    if kwargs.get("device") is None or to_us:
        return OnDevice(func(source.held, **given))
    waits.reads.append(f"{func} {_line()}")
    return func(source.held, **given)


def _may_meet(func: Any, others: list[Tensor], waits: Waits) -> bool:
    """Return whether CUDA takes these tensors of the CPU: numbers where it works element by
    element, and indices, which it copies."""
    if func in _INDEXED and all(not x.is_floating_point() for x in others):
        waits.writes.append(f"{func} {_line()}")
        return True
    return torch.Tag.pointwise in func.tags and all(x.dim() == 0 for x in others)


def _depends_on_values(func: Any, args: Any, kwargs: Any) -> bool:
    if func is _aten.repeat_interleave.Tensor:
        return kwargs.get("output_size") is None
    if func in _INDEXED:
        return any(x is not None and x.dtype in (torch.bool, torch.uint8) for x in args[1])
    return False


def _pinned(tensor: Tensor) -> Tensor:
    made: Any = tensor.clone()
    made.is_pinned_here = True
    pinned: Tensor = made
    return pinned


def _line() -> str:
    """Return the innermost line of the trainer that is running."""
    for frame in reversed(traceback.extract_stack()):
        if "/trainer/" in frame.filename and "/tests/" not in frame.filename:
            place = frame.filename.rpartition("/trainer/")[2]
            return f"trainer/{place}:{frame.lineno}"
    return "outside of the trainer"


@contextmanager
def device() -> Iterator[Device]:
    """Register the device, which a process can do once, and use it inside."""
    _setup_privateuseone_for_python_backend(NAME, backend_module=_Module())
    # a module that moves keeps its parameters, and so its ties
    torch.__future__.set_swap_module_params_on_conversion(True)
    # torch.tensor(…, device=…) makes a tensor of the CPU and copies it, and lets us see the copy
    torch._C._set_only_lift_cpu_tensors(True)
    # its tensor has no values: torch makes it only where no mode is on
    causal = bias.causal_lower_right
    bias.causal_lower_right = lambda rows, columns: _without_modes(causal, rows, columns)
    with Device() as found:
        yield found


def _without_modes(make: Callable[..., Any], *args: Any) -> Any:
    with _disable_current_modes():
        return make(*args)
