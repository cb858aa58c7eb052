"""Decoder layers compiled by torch, outside of attention: `compile` of TrainConfig.

Norms and the feed-forward part, with the adapters in it, run as fused kernels instead of one for
each operation. Attention is left out: how a pack is attended differs from pack to pack. Experts of
a mixture are left out as well, since which of them run depends on the data.
"""

from typing import Any

import torch
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from trainer.errors import RunFailed

#: Tokens of the pass that shows whether torch can compile here.
PROBE_TOKENS = 16


def compile_layers(model: Any, *, compiler: Any = "inductor") -> None:
    """Compile a model's layers, in place, and run them once with gradients.

    `compiler` is a backend of torch.compile. Raises RunFailed where it does not work on this
    machine.
    """
    decoder = model.get_decoder()
    layers = [m for m in decoder.modules() if isinstance(m, GradientCheckpointingLayer)]
    for part in (part for layer in layers for part in compilable(layer)):
        # any length: every pack has another one
        part.compile(dynamic=True, backend=compiler)
    device = next(model.parameters()).device
    ids = torch.zeros((1, PROBE_TOKENS), dtype=torch.long, device=device)
    try:
        with torch.enable_grad():
            decoder(input_ids=ids, use_cache=False).last_hidden_state.sum().backward()
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # the compiler's errors have no common class
        (first, *_) = str(error).splitlines() or [type(error).__name__]
        raise RunFailed(
            f"torch.compile does not work here ({first})",
            advice="set compile to false and start a new run",
        ) from error
    model.zero_grad(set_to_none=True)


def compilable(layer: nn.Module) -> list[nn.Module]:
    """Return the parts of a decoder layer without attention and without experts."""
    return [
        part
        for part in layer.children()
        if not any(hasattr(module, "layer_idx") for module in part.modules())
        and not any(name.endswith("experts") for name, _ in part.named_modules())
    ]
