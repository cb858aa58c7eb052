"""4-bit base weights: a frozen base in a quarter of its memory, an adapter in full on top of it.

NF4 with double quantisation (Dettmers et al. 2023, QLoRA, Section 3) by bitsandbytes, on CUDA. The
model arrives in its usual type on the CPU and leaves layer by layer, so that the device never
holds more than the packed weights and one layer.

Packed are the layers that an adapter may sit on, and the experts of a mixture (parameters of
three dimensions); embeddings, head, norms and routers stay as they are.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from trainer.models.layers import linear_layers

FOUR_BIT = "4bit"


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
            return self.inner(*args, **kwargs)
        return checkpoint(self.inner, *args, use_reentrant=False, **kwargs)


def quantisation_faults(
    quantisation: str, device: torch.device, *, installed: bool | None = None
) -> list[str]:
    """Return why a base cannot be quantised here; `installed`: whether bitsandbytes is."""
    if quantisation != FOUR_BIT:
        return [f"quantisation must be {FOUR_BIT!r} or left out, not {quantisation!r}"]
    faults = []
    if device.type != "cuda" or not torch.cuda.is_available():
        faults.append(
            f"4-bit base weights need a CUDA device, not {device}: leave quantisation out to "
            "train in bfloat16"
        )
    if not (find_spec("bitsandbytes") is not None if installed is None else installed):
        faults.append(
            "4-bit base weights need the package bitsandbytes: install it, or leave quantisation "
            "out"
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
            linear.weight.data, requires_grad=False, quant_type="nf4", compress_statistics=True
        )
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, packed.to(device))
    _pack_experts(model, device)


def _pack_experts(model: Any, device: torch.device) -> None:
    pack = import_module("bitsandbytes.nn.parametrize").replace_parameter_4bit
    for name, module in list(model.get_decoder().named_modules()):
        fused = [key for key, weight in module.named_parameters(recurse=False) if weight.ndim == 3]
        if not fused:
            continue
        module.to(device)
        for key in fused:
            pack(module, key, compress_statistics=True, quant_type="nf4")
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_decoder().get_submodule(parent), leaf, Recomputed(module))
