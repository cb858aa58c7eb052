"""4-bit base weights: a frozen base in a quarter of its memory, an adapter in full on top of it.

NF4 with double quantisation (Dettmers et al. 2023, QLoRA, Section 3) by bitsandbytes, on CUDA and
on CPUs. The model arrives in its usual type on the CPU and leaves layer by layer, so that the
device never holds more than the packed weights and one layer.

Packed are the layers that an adapter may sit on, and the experts of a mixture (parameters of
three dimensions); embeddings, head, norms and routers stay as they are. Weights are rounded to
bfloat16 before they are packed: trainer, gate and engine hold the same packed bytes, whatever type
each of them computes in.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from threading import local
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization
from torch.utils.checkpoint import checkpoint

from trainer.models.layers import linear_layers

FOUR_BIT = "4bit"
#: Devices that bitsandbytes has kernels for and that a test covers, or that were run by hand.
DEVICES = ("cpu", "cuda")
_NF4: dict[str, Any] = {"quant_type": "nf4", "compress_statistics": True}
#: What this thread has unpacked within a call of `Recomputed`, by packed tensor.
_UNPACKED = local()


class Recomputed(nn.Module):
    """Runs a module without keeping anything for the backward pass, which runs it again.

    Packed experts are unpacked as a whole when they are used; autograd would keep what was
    unpacked in every layer, and with it the memory that packing saved.
    """

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return the module's output."""
        if not torch.is_grad_enabled():
            return self._run(*args, **kwargs)
        return checkpoint(self._run, *args, use_reentrant=False, **kwargs)

    def _run(self, *args: Any, **kwargs: Any) -> Any:
        with _unpacked_once():
            return self.inner(*args, **kwargs)


class Unpacked(nn.Module):
    """The parametrisation of a packed parameter: what its module reads as the parameter.

    bitsandbytes has one too (`replace_parameter_4bit`). That one keeps what is unpacked in a cache
    of the whole process, which threads that run packs in parallel would clear for each other.
    """

    def __init__(self, quant_state: Any) -> None:
        super().__init__()
        self.quant_state = quant_state

    def forward(self, packed: Tensor) -> Tensor:
        """Return the parameter in its own shape, in the type that is computed in."""
        known: dict[int, Tensor] | None = getattr(_UNPACKED, "tensors", None)
        if known is not None and id(packed) in known:
            return known[id(packed)]
        unpack = import_module("bitsandbytes.functional").dequantize_4bit
        with torch.no_grad():
            found: Tensor = unpack(packed, self.quant_state)
        if known is not None:
            known[id(packed)] = found
        return found


@contextmanager
def _unpacked_once() -> Iterator[None]:
    """Inside, this thread unpacks each parameter once: modules may read it for every expert."""
    _UNPACKED.tensors = {}
    try:
        yield
    finally:
        _UNPACKED.tensors = None


def quantisation_faults(
    quantisation: str, device: torch.device, *, installed: bool | None = None
) -> list[str]:
    """Return why a base cannot be quantised here; `installed`: whether bitsandbytes is."""
    if quantisation != FOUR_BIT:
        return [f"quantisation must be {FOUR_BIT!r} or left out, not {quantisation!r}"]
    faults = []
    if device.type not in DEVICES:
        faults.append(
            f"4-bit base weights need a CPU or a CUDA device, not {device}: leave quantisation "
            "out to train in bfloat16"
        )
    if not (find_spec("bitsandbytes") is not None if installed is None else installed):
        faults.append(
            "4-bit base weights need the package bitsandbytes: `pip install "
            "'prospect[quantised]'`, or leave quantisation out"
        )
    return faults


def quantise_4bit(model: Any, *, device: torch.device, dtype: torch.dtype) -> None:
    """Pack the model's large weights in place, on `device`; products are computed in `dtype`.

    What is not packed stays where it is: move the model afterwards.
    """
    # by name: an optional package, which type checkers must do without
    kinds = import_module("bitsandbytes.nn")
    for name, linear in linear_layers(model).items():
        if type(linear) is not nn.Linear:
            continue  # GPT-2's transposed layers: small models, not worth a path of their own
        packed = kinds.Linear4bit(
            linear.in_features,
            linear.out_features,
            bias=linear.bias is not None,
            compute_dtype=dtype,
            quant_type="nf4",
            device="meta",
        )
        packed.bias = linear.bias
        packed.weight = kinds.Params4bit(
            _rounded(linear.weight, dtype), requires_grad=False, **_NF4
        )
        # On CPUs with bfloat16 units a pass without gradients would reorder the weights for
        # serving; the passes of a training that follow would have no gradient.
        packed.support_avx512bf16_for_cpu = False
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, packed.to(device))
    _pack_experts(model, device, dtype)


def _pack_experts(model: Any, device: torch.device, dtype: torch.dtype) -> None:
    pack = import_module("bitsandbytes.functional").quantize_4bit
    for name, module in list(model.get_decoder().named_modules()):
        fused = [key for key, weight in module.named_parameters(recurse=False) if weight.ndim == 3]
        if not fused:
            continue
        for key in fused:
            weight = _rounded(module.get_parameter(key), dtype).to(device)
            packed, state = pack(weight, **_NF4)
            setattr(module, key, nn.Parameter(packed, requires_grad=False))
            # unsafe: a packed tensor has another shape and type than what it is unpacked to
            register_parametrization(module, key, Unpacked(state), unsafe=True)
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_decoder().get_submodule(parent), leaf, Recomputed(module))


def _rounded(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the weight rounded to bfloat16, as `dtype`."""
    return weight.detach().to(torch.bfloat16).to(dtype)
