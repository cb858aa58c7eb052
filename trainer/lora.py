"""LoRA on every linear layer of a causal LM: found, switched, saved under PEFT's names.

y = W x + (α/r)·B A x with W frozen; A starts random, B at zero, so that the policy starts as the
reference (Hu et al. 2021, Section 4.1). The layer is our own because PEFT's costs a fifth of the
step here; what is written to disk is PEFT's format, and a test loads it with PEFT.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainer.errors import BadArtifact, Refused

_PREFIX = "base_model.model."


class LoraLinear(nn.Module):
    """A frozen linear layer with a low-rank addition that can be switched off."""

    def __init__(self, frozen: nn.Linear, rank: int, alpha: float, dropout: float) -> None:
        super().__init__()
        weight = frozen.weight
        self.frozen = frozen
        self.scale = alpha / rank
        self.dropout = dropout
        self.active = True
        self.lora_a = nn.Parameter(torch.zeros(rank, frozen.in_features).to(weight))
        self.lora_b = nn.Parameter(torch.zeros(frozen.out_features, rank).to(weight))

    def forward(self, x: Tensor) -> Tensor:
        """(…, in) → (…, out)."""
        base: Tensor = self.frozen(x)
        if not self.active:
            return base
        dropped = F.dropout(x, self.dropout) if self.training and self.dropout > 0 else x
        low = F.linear(dropped, self.lora_a).flatten(0, -2)
        flat = base.flatten(0, -2)
        return torch.addmm(flat, low, self.lora_b.t(), alpha=self.scale).view(base.shape)


@dataclass(frozen=True)
class Lora:
    """The adapter of a model: its layers by the name of the linear layer they wrap."""

    model: Any
    layers: Mapping[str, LoraLinear]
    rank: int
    alpha: float
    dropout: float

    @classmethod
    def attach(
        cls, model: Any, *, rank: int, alpha: float, dropout: float = 0.0, seed: int = 0
    ) -> Self:
        """Freeze the model and wrap each of its linear layers except the head.

        A is drawn from U(−1/√in, 1/√in), as PEFT does, from a generator of its own: the same seed
        gives the same adapter wherever the process has drawn before. Raises Refused when the model
        has no linear layer.
        """
        model.requires_grad_(False)
        model.eval()
        layers = {}
        for name, linear in linear_layers(model).items():
            parent, _, leaf = name.rpartition(".")
            layers[name] = LoraLinear(linear, rank, alpha, dropout)
            setattr(model.get_submodule(parent), leaf, layers[name])
        if not layers:
            raise Refused(f"{type(model).__name__} has no linear layers that LoRA could adapt")
        generator = torch.Generator().manual_seed(seed)
        for layer in layers.values():
            bound = 1 / math.sqrt(layer.lora_a.shape[1])
            drawn = torch.rand(layer.lora_a.shape, generator=generator) * 2 * bound - bound
            layer.lora_a.data.copy_(drawn)
        return cls(model, layers, rank, alpha, dropout)

    def detach(self) -> None:
        """Put the frozen layers back; the model is the base again."""
        for name, layer in self.layers.items():
            parent, _, leaf = name.rpartition(".")
            setattr(self.model.get_submodule(parent), leaf, layer.frozen)

    def parameters(self) -> dict[str, nn.Parameter]:
        """The trainable matrices under PEFT's names."""
        named = {}
        for name, layer in self.layers.items():
            named[f"{_PREFIX}{name}.lora_A.weight"] = layer.lora_a
            named[f"{_PREFIX}{name}.lora_B.weight"] = layer.lora_b
        return named

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over matrices under PEFT's names. Raises BadArtifact when they do not fit."""
        own = self.parameters()
        faults = [f"{name} is missing" for name in own if name not in tensors]
        faults += [f"{name} fits no layer of this model" for name in tensors if name not in own]
        faults += [
            f"{name} has shape {tuple(tensors[name].shape)}, expected {tuple(own[name].shape)}"
            for name in own
            if name in tensors and tensors[name].shape != own[name].shape
        ]
        if faults:
            raise BadArtifact(*faults)
        for name, parameter in own.items():
            parameter.data.copy_(tensors[name])

    @contextmanager
    def off(self) -> Iterator[None]:
        """Inside, the model is the reference."""
        self._switch(False)
        try:
            yield
        finally:
            self._switch(True)

    def train(self, mode: bool = True) -> None:
        """Dropout of the adapter on or off; the base always runs as it is served."""
        for layer in self.layers.values():
            layer.training = mode

    def _switch(self, active: bool) -> None:
        for layer in self.layers.values():
            layer.active = active


def linear_layers(model: Any) -> dict[str, nn.Linear]:
    """Every linear layer by name, without the head (also where it is no attribute `lm_head`)."""
    head = model.get_output_embeddings()
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module is not head
    }


def adapter_config(lora: Lora, *, base_model: str) -> dict[str, Any]:
    """PEFT's adapter_config.json for this adapter."""
    return {
        "base_model_name_or_path": base_model,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": lora.alpha,
        "lora_dropout": lora.dropout,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": lora.rank,
        "target_modules": sorted({name.rpartition(".")[2] for name in lora.layers}),
        "task_type": "CAUSAL_LM",
        "use_dora": False,
        "use_rslora": False,
    }


class MasterWeights:
    """fp32 copies of the adapter that the optimiser moves.

    The adapter itself may be bf16, whose steps are too coarse for small updates; gradients are
    summed here in fp32 after each micro-batch.
    """

    def __init__(self, lora: Lora) -> None:
        self._adapter = lora.parameters()
        self.tensors = {
            name: parameter.detach().float().clone() for name, parameter in self._adapter.items()
        }
        for tensor in self.tensors.values():
            tensor.grad = torch.zeros_like(tensor)

    def collect(self) -> None:
        """Add the adapter's gradients to the masters' and clear them."""
        for name, parameter in self._adapter.items():
            if parameter.grad is not None:
                gradient = self.tensors[name].grad
                assert gradient is not None  # noqa: S101 - set once in __init__
                gradient.add_(parameter.grad)
                parameter.grad = None

    def clear(self) -> None:
        """Drop all gradients: of the last step, or of one that was interrupted."""
        for parameter in self._adapter.values():
            parameter.grad = None
        for tensor in self.tensors.values():
            if tensor.grad is not None:
                tensor.grad.zero_()

    def publish(self) -> None:
        """Copy the masters into the adapter, rounding to its type."""
        for name, parameter in self._adapter.items():
            parameter.data.copy_(self.tensors[name])

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over saved masters and publish them."""
        for name, tensor in self.tensors.items():
            tensor.copy_(tensors[name])
        self.publish()
