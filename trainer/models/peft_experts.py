"""LoRA on the routed experts of a mixture, through PEFT's `target_parameters`.

transformers holds the experts of a layer as parameters of three dimensions, one expert after the
other. PEFT adapts such a parameter by building W + s · B A of all experts at every forward pass,
which no engine does for a batch of several adapters: such an adapter is trained, merged and then
served as a model (trainer/artifacts/merge.py).
"""

from typing import Any

import torch
from torch import Tensor, nn

#: PEFT's name of the one adapter in its layers.
NAME = "default"
#: What PEFT calls the inner one of two layers around the same experts.
INNER = ".base_layer"


def expert_parameters(model: Any) -> list[str]:
    """Return the names of the parameters that hold a layer's routed experts, in the model's order;
    none for a model that is no mixture."""
    decoder = {id(parameter) for parameter in model.get_decoder().parameters()}
    return [
        name
        for name, parameter in model.named_parameters()
        if parameter.ndim == 3 and id(parameter) in decoder and "experts" in name.split(".")
    ]


def target_parameters(names: list[str]) -> list[str]:
    """PEFT's `target_parameters` for these parameters: their last two parts."""
    return sorted({".".join(name.split(".")[-2:]) for name in names})


class PeftExperts:
    """PEFT's layer around the experts of one parameter, with what PeftLinear offers to Lora.

    `lora_a` is (experts · r, in), `lora_b` (out, experts · r). There is no dropout: it cannot be
    applied to what is added to a weight.
    """

    magnitude = None
    training = False

    def __init__(self, layer: Any) -> None:
        self.layer = layer
        self.frozen: nn.Module = layer.get_base_layer()
        self.parameter: nn.Parameter = layer.get_param()
        self.lora_a: nn.Parameter = layer.lora_A[NAME].weight
        self.lora_b: nn.Parameter = layer.lora_B[NAME].weight

    @property
    def target(self) -> str:
        """Return the parameter's name in PEFT's `target_parameters`."""
        return f"experts.{self.layer.parameter_name}"

    @property
    def dtype(self) -> torch.dtype:
        return self.parameter.dtype

    def switch(self, active: bool) -> None:
        """Compute as the policy (`active`) or as the reference from now on."""
        self.layer.enable_adapters(active)

    def merge(self) -> None:
        """W ← W + s · B A, expert by expert: summed in float32, rounded once to W's type."""
        left, right, scale = self.layer.get_delta_factors(NAME)
        with torch.no_grad():
            for weight, down, up in zip(self.parameter, left, right, strict=True):
                weight.copy_(_sum(weight, down, up, scale))


def _sum(weight: Tensor, left: Tensor, right: Tensor, scale: float) -> Tensor:
    return weight.float() + scale * (left.float() @ right.float())


def expert_layers(model: Any) -> dict[str, PeftExperts]:
    """Return the layers that PEFT has put around experts, by name. Two parameters of one module
    have a layer each, of which one wraps the other."""
    from peft.tuners.lora import ParamWrapper

    return {
        name: PeftExperts(module)
        for name, module in model.named_modules()
        if isinstance(module, ParamWrapper)
    }
