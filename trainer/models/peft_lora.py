"""Adapters in PEFT's own layers: what trains on the reference and CUDA backends, and every variant
that trainer/models/lora.py does not compute.

- DoRA (Liu et al. 2024, arXiv 2402.09353) learns a magnitude of each output beside the direction
  that LoRA changes.
- PiSSA (Meng et al. 2024, arXiv 2404.02948) starts from the r largest singular values of each
  weight, which are taken out of the base. The reference is then the adapter as it starts, on what
  is left of the base. What is saved is the difference between the trained and the first adapter, a
  LoRA of rank 2r on the untouched base: any engine serves it.
- Adapters of routed experts (trainer/models/peft_experts.py).
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from trainer.errors import Refused
from trainer.models.layers import Linear, is_transposed, layer_dtype, layer_shape, linear_layers
from trainer.models.lora import PREFIX, Lora, draw_first, lora_scale
from trainer.models.peft_experts import (
    INNER,
    NAME,
    PeftExperts,
    expert_layers,
    expert_parameters,
    target_parameters,
)

#: Subspace iterations: the whole decomposition of a 7B model's weights would take an hour.
_PISSA = "pissa_niter_16"


class PeftLinear:
    """One of PEFT's LoRA layers, with what trainer.models.lora.LoraLinear offers to Lora."""

    def __init__(self, layer: Any) -> None:
        self.layer = layer
        self.frozen: Linear = layer.get_base_layer()
        self.lora_a: nn.Parameter = layer.lora_A[NAME].weight
        self.lora_b: nn.Parameter = layer.lora_B[NAME].weight
        self.start: tuple[Tensor, Tensor] | None = None

    @property
    def dtype(self) -> torch.dtype:
        """Return the type it computes in."""
        return layer_dtype(self.frozen)

    @property
    def magnitude(self) -> nn.Parameter | None:
        """Return DoRA's magnitudes (out,); None without DoRA."""
        vectors = self.layer.lora_magnitude_vector
        found: nn.Parameter | None = vectors[NAME].weight if NAME in vectors else None
        return found

    @property
    def training(self) -> bool:
        """Return whether dropout is on."""
        return bool(self.layer.training)

    @training.setter
    def training(self, mode: bool) -> None:
        # the layer that it wraps stays in eval mode
        self.layer.training = mode
        self.layer.lora_dropout.train(mode)

    def switch(self, active: bool) -> None:
        """Compute as the policy (`active`) or as the reference from now on."""
        if self.start is None:
            self.layer.enable_adapters(active)
            return
        kept = self.lora_a.data, self.lora_b.data
        self.lora_a.data, self.lora_b.data = self.start
        self.start = kept


@dataclass(frozen=True)
class PeftLora(Lora):
    """An adapter whose layers are PEFT's. `init` is "default" or "pissa"."""

    init: str = "default"

    @classmethod
    def attach(
        cls,
        model: Any,
        *,
        rank: int,
        alpha: float,
        dropout: float = 0.0,
        rslora: bool = False,
        seed: int = 0,
        only: Collection[str] | None = None,
        dora: bool = False,
        init: str = "default",
        experts: bool = False,
    ) -> Self:
        """Freeze the model and let PEFT wrap its linear layers (those named in `only`, where it is
        given), and with `experts` the routed experts of a mixture. PiSSA changes the model's
        weights.

        The same seed gives the same adapter, and without PiSSA the one that Lora.attach gives.
        Raises Refused when there is no layer to adapt, or no expert where they are asked for, or
        PiSSA cannot start in one.
        """
        # it asks for the GPU's properties, and imports whatever of its kind is installed
        from peft import LoraConfig, inject_adapter_in_model

        chosen = {
            name: layer
            for name, layer in linear_layers(model).items()
            if only is None or name in only
        }
        parameters = expert_parameters(model) if experts else []
        if experts and not parameters:
            raise Refused(f"{type(model).__name__} has no routed experts: leave experts out")
        if not chosen and not parameters:
            raise Refused(f"{type(model).__name__} has no linear layers that LoRA could adapt")
        if init == "pissa":
            _refuse_pissa(chosen, rank)
        settings = LoraConfig(
            r=rank,
            lora_alpha=alpha,  # type: ignore[arg-type,unused-ignore]  # PEFT divides by the rank
            lora_dropout=dropout,
            use_rslora=rslora,
            use_dora=dora,
            init_lora_weights=_PISSA if init == "pissa" else True,
            target_modules=list(chosen) or None,
            target_parameters=target_parameters(parameters) or None,
            fan_in_fan_out=any(is_transposed(layer) for layer in chosen.values()),
        )
        model.requires_grad_(False)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            inject_adapter_in_model(settings, model)
        model.eval()
        layers: dict[str, Any] = {
            name: PeftLinear(model.get_submodule(name)) for name in chosen
        } | expert_layers(model)
        if init != "pissa":
            for layer in layers.values():
                for parameter in _parameters(layer):
                    parameter.data = parameter.data.to(layer.dtype)
            draw_first([layer.lora_a for layer in layers.values()], seed=seed)
        made = cls(model, layers, rank, alpha, dropout, rslora, dora, init)
        if init == "pissa":
            made.start_here()
        return made

    def detach(self) -> None:
        for name, layer in self.layers.items():
            if not name.endswith(INNER):  # the outer one of two holds what both wrap
                parent, _, leaf = name.rpartition(".")
                setattr(self.model.get_submodule(parent), leaf, layer.frozen)
        # PEFT leaves a mark on the model, and warns when it meets it again
        del self.model.peft_config

    def parameters(self) -> dict[str, nn.Parameter]:
        """Return the trainable matrices, and DoRA's magnitudes, under PEFT's names."""
        named = super().parameters()
        for name, layer in self.layers.items():
            if layer.magnitude is not None:
                named[f"{PREFIX}{name}.lora_magnitude_vector"] = layer.magnitude
        return named

    def saved(self, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
        """Return what to store of these values of the parameters: with PiSSA the difference to the
        first adapter, of rank 2r, in float32."""
        if self.init != "pissa":
            return super().saved(tensors, dtype)
        found = {}
        # the twofold rank and α of what is saved give another scale with rsLoRA
        scale = lora_scale(rank=self.rank, alpha=self.alpha, rslora=self.rslora)
        scale /= lora_scale(rank=self.saved_rank, alpha=self.saved_alpha, rslora=self.rslora)
        for name, layer in self.layers.items():
            key = f"{PREFIX}{name}.lora_"
            first_a, first_b = (one.float().cpu() for one in layer.start)
            a, b = (tensors[f"{key}{side}.weight"].float().cpu() for side in "AB")
            down, up = balanced(torch.cat([a, first_a]), torch.cat([b, -first_b], dim=1))
            found[f"{key}A.weight"], found[f"{key}B.weight"] = down, scale * up
        return found

    @property
    def saved_rank(self) -> int:
        return 2 * self.rank if self.init == "pissa" else self.rank

    @property
    def saved_alpha(self) -> float:
        return 2 * self.alpha if self.init == "pissa" else self.alpha


def _refuse_pissa(layers: Mapping[str, Linear], rank: int) -> None:
    """Raise Refused where PiSSA cannot start: packed weights, layers narrower than the rank."""
    packed = [name for name, layer in layers.items() if not layer.weight.is_floating_point()]
    narrow = [name for name, layer in layers.items() if min(layer_shape(layer)) < rank]
    faults = []
    if packed:
        faults.append(f"PiSSA cannot start from the packed weight of {packed[0]}")
    if narrow:
        faults.append(f"lora_r is {rank}: PiSSA needs at most the width of {narrow[0]}")
    if faults:
        raise Refused(*faults)


def _parameters(layer: PeftLinear | PeftExperts) -> list[nn.Parameter]:
    found = [layer.lora_a, layer.lora_b]
    return found if layer.magnitude is None else [*found, layer.magnitude]


def balanced(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return A (r, in) and B (out, r) with the same product and rows and columns of equal length.

    The difference of two adapters is small while its two halves are large: in this form, rounding
    a matrix to bfloat16 changes the product in proportion to the product itself.
    """
    rank = a.shape[0]
    q_b, r_b = torch.linalg.qr(b.double())
    q_a, r_a = torch.linalg.qr(a.double().t())
    u, s, v = torch.linalg.svd(r_b @ r_a.t(), full_matrices=False)
    root = s.sqrt()
    down, up = root[:, None] * (v @ q_a.t()), (q_b @ u) * root
    # layers narrower than the rank have fewer rows
    empty = rank - down.shape[0]
    down = torch.cat([down, down.new_zeros(empty, down.shape[1])])
    up = torch.cat([up, up.new_zeros(up.shape[0], empty)], dim=1)
    return down.float(), up.float()
