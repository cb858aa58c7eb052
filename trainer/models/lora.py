"""LoRA on the linear layers of a causal LM: put on, switched, saved under PEFT's names.

y = W x + (α/r)·B A x with W frozen; A starts random, B at zero, so that the policy starts as the
reference (Hu et al. 2021, Section 4.1). rsLoRA multiplies by α/√r instead, so that a higher rank
does not weaken the adapter (Kalajdzievski 2023, arXiv 2312.03732). The layer is our own because
PEFT's costs a fifth of the step on CPUs; what is written to disk is PEFT's format, and a test loads
it with PEFT. The other backends train PEFT's layers (peft_lora.py).
"""

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self, TypeAlias

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from trainer.errors import BadArtifact, Refused
from trainer.models.layers import (
    Linear,
    dense_weight,
    is_transposed,
    layer_dtype,
    layer_shape,
    linear_layers,
    target_modules,
)

PREFIX = "base_model.model."


def lora_scale(*, rank: int, alpha: float, rslora: bool) -> float:
    """Return what B A is multiplied by: α/r, or α/√r with rsLoRA."""
    return alpha / (math.sqrt(rank) if rslora else rank)


def scale_of(settings: Mapping[str, Any]) -> float:
    """Return the scale that a verified adapter_config.json asks for."""
    return lora_scale(
        rank=settings["r"],
        alpha=settings["lora_alpha"],
        rslora=bool(settings.get("use_rslora")),
    )


class _LowRank(torch.autograd.Function):
    """x Wᵀ + b + s·(x Aᵀ) Bᵀ for some frozen W and b that read the same x (N, in): for each of
    them, of `parts`, W (out, in), b (out) or None, A (r, in), B (out, r), in this order.

    Autograd would keep x and x Aᵀ of each, but walk through five nodes and add up three partial
    results; here every sum is taken in the pass that multiplies, x meets all A at once, and
    nothing is computed for an x that needs no gradient (the first layer's).
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, scales: tuple[float, ...], *parts: Tensor | None
    ) -> tuple[Tensor, ...]:
        weights, biases, a, b = parts[0::4], parts[1::4], _given(parts[2::4]), _given(parts[3::4])
        stacked = a[0] if len(a) == 1 else torch.cat(a)
        low = x @ stacked.t()
        ctx.save_for_backward(x, low, stacked, *weights, *b)
        ctx.scales = scales
        return tuple(
            F.linear(x, weight, bias).addmm_(part, up.t(), alpha=scale)
            for weight, bias, part, up, scale in zip(
                _given(weights), biases, low.split(_ranks(b), dim=1), b, scales, strict=True
            )
        )

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        x, low, stacked, *rest = ctx.saved_tensors
        count = len(upstream)
        weights, b = rest[:count], rest[count:]
        ranks = _ranks(b)
        d_lows = [(dy @ up).mul_(s) for dy, up, s in zip(upstream, b, ctx.scales, strict=True)]
        d_low = d_lows[0] if count == 1 else torch.cat(d_lows, dim=1)
        d_x = None
        if ctx.needs_input_grad[0]:
            d_x = upstream[0] @ weights[0]
            for dy, weight in zip(upstream[1:], weights[1:], strict=True):
                d_x.addmm_(dy, weight)
            d_x.addmm_(d_low, stacked)
        d_a = (d_low.t() @ x).split(ranks)
        d_b = [
            (dy.t() @ part).mul_(s)
            for dy, part, s in zip(upstream, low.split(ranks, dim=1), ctx.scales, strict=True)
        ]
        found = ((None, None, down, up) for down, up in zip(d_a, d_b, strict=True))
        return d_x, None, *(gradient for four in found for gradient in four)


def _given(tensors: Sequence[Tensor | None]) -> list[Tensor]:
    """Weights are always there; only biases may be missing."""
    return [tensor for tensor in tensors if tensor is not None]


def _ranks(b: Sequence[Tensor]) -> list[int]:
    return [matrix.shape[1] for matrix in b]


class LoraLinear(nn.Module):
    """A frozen linear layer with a low-rank addition that can be switched off.

    Plain layers take the fast path above. What keeps its weight in a form of its own (4-bit) is
    called, and so is every layer while dropout is on; autograd does the rest.
    """

    def __init__(
        self, frozen: Linear, rank: int, alpha: float, dropout: float, *, rslora: bool = False
    ) -> None:
        super().__init__()
        out_features, in_features = layer_shape(frozen)
        like: dict[str, Any] = {"dtype": layer_dtype(frozen), "device": frozen.weight.device}
        self.frozen = frozen
        self.scale = lora_scale(rank=rank, alpha=alpha, rslora=rslora)
        self.dropout = dropout
        self.active = True
        #: A and B of the adapter that training starts from, which the reference has; None: it has
        #: none. While the reference runs they are in the place of the parameters' values.
        self.start: tuple[Tensor, Tensor] | None = None
        self.lora_a = nn.Parameter(torch.zeros(rank, in_features, **like))
        self.lora_b = nn.Parameter(torch.zeros(out_features, rank, **like))

    def forward(self, x: Tensor) -> Tensor:
        """(…, in) → (…, out)."""
        if not self.active:
            base: Tensor = self.frozen(x)
            return base
        weight = dense_weight(self.frozen)
        drops = self.training and self.dropout > 0
        if weight is None or drops:
            base = self.frozen(x)
            dropped = F.dropout(x, self.dropout) if drops else x
            low = F.linear(dropped, self.lora_a).flatten(0, -2)
            flat = torch.addmm(base.flatten(0, -2), low, self.lora_b.t(), alpha=self.scale)
            return flat.view(base.shape)
        parts = (weight, self.frozen.bias, self.lora_a, self.lora_b)
        (y,) = _LowRank.apply(x.flatten(0, -2), (self.scale,), *parts)
        shaped: Tensor = y.view(*x.shape[:-1], -1)
        return shaped

    def switch(self, active: bool) -> None:
        """Compute as the policy (`active`) or as the reference from now on."""
        if self.start is None:
            self.active = active
            return
        kept = self.lora_a.data, self.lora_b.data
        self.lora_a.data, self.lora_b.data = self.start
        self.start = kept

    @property
    def is_plain(self) -> bool:
        """Return whether the layer may be run together with others: adapted, dense, without
        dropout."""
        drops = self.training and self.dropout > 0
        return self.active and not drops and dense_weight(self.frozen) is not None


def together(layers: Sequence[Any], x: Tensor) -> tuple[Tensor, ...]:
    """Return what each of some linear layers makes of the same x (N, in), in fewer products where
    all of them are adapted."""
    adapted = [layer for layer in layers if isinstance(layer, LoraLinear) and layer.is_plain]
    if len(adapted) < len(layers):
        return tuple(layer(x) for layer in layers)
    parts = [
        part
        for layer in adapted
        for part in (
            dense_weight(layer.frozen),
            layer.frozen.bias,
            layer.lora_a,
            layer.lora_b,
        )
    ]
    found: tuple[Tensor, ...] = _LowRank.apply(x, tuple(layer.scale for layer in adapted), *parts)
    return found


@dataclass(frozen=True)
class Lora:
    """The adapter of a model: its layers by the name of the linear layer they wrap, LoraLinear here
    and PEFT's in trainer/models/peft_lora.py. `dora` is always false here."""

    model: Any
    layers: Mapping[str, Any]
    rank: int
    alpha: float
    dropout: float
    rslora: bool = False
    dora: bool = False

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
    ) -> Self:
        """Freeze the model and wrap its linear layers (those named in `only`, where it is given).

        A is drawn from U(−1/√in, 1/√in), as PEFT does, from a generator of its own: the same seed
        gives the same adapter wherever the process has drawn before. Raises Refused when the model
        has no linear layer.
        """
        model.requires_grad_(False)
        model.eval()
        layers = {}
        for name, linear in linear_layers(model).items():
            if only is not None and name not in only:
                continue
            parent, _, leaf = name.rpartition(".")
            layers[name] = LoraLinear(linear, rank, alpha, dropout, rslora=rslora)
            setattr(model.get_submodule(parent), leaf, layers[name])
        if not layers:
            raise Refused(f"{type(model).__name__} has no linear layers that LoRA could adapt")
        draw_first([layer.lora_a for layer in layers.values()], seed=seed)
        return cls(model, layers, rank, alpha, dropout, rslora)

    def detach(self) -> None:
        """Put the frozen layers back; the model is the base again."""
        for name, layer in self.layers.items():
            parent, _, leaf = name.rpartition(".")
            setattr(self.model.get_submodule(parent), leaf, layer.frozen)

    def parameters(self) -> dict[str, nn.Parameter]:
        """Return the trainable matrices under PEFT's names."""
        named = {}
        for name, layer in self.layers.items():
            named[f"{PREFIX}{name}.lora_A.weight"] = layer.lora_a
            named[f"{PREFIX}{name}.lora_B.weight"] = layer.lora_b
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

    def start_from(self, tensors: Mapping[str, Tensor]) -> None:
        """Begin with an adapter's matrices, as policy and as reference. Raises BadArtifact."""
        self.load(tensors)
        self.start_here()

    def start_here(self) -> None:
        """Make the adapter as it is now a part of the reference."""
        for layer in self.layers.values():
            layer.start = layer.lora_a.detach().clone(), layer.lora_b.detach().clone()

    def saved(self, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
        """Return what to store of these values of the parameters."""
        return {name: tensor.to(dtype) for name, tensor in tensors.items()}

    @property
    def saved_rank(self) -> int:
        """Return the rank of what is stored."""
        return self.rank

    @property
    def saved_alpha(self) -> float:
        """Return the α of what is stored."""
        return self.alpha

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
            layer.switch(active)


def draw_first(matrices: Iterable[Tensor], *, seed: int) -> None:
    """Fill A matrices (r, in) with their first values: the same ones in every implementation."""
    generator = torch.Generator().manual_seed(seed)
    for matrix in matrices:
        bound = 1 / math.sqrt(matrix.shape[1])
        drawn = torch.rand(matrix.shape, generator=generator) * 2 * bound - bound
        matrix.data.copy_(drawn)


def adapted_layers(names: Iterable[str]) -> list[str]:
    """Return the layers that matrices under PEFT's names belong to."""
    return sorted({name.removeprefix(PREFIX).rpartition(".lora_")[0] for name in names})


def adapter_config(lora: Lora, *, base_model: str) -> dict[str, Any]:
    """PEFT's adapter_config.json for this adapter."""
    experts = sorted({layer.target for layer in lora.layers.values() if hasattr(layer, "target")})
    linear = [name for name, layer in lora.layers.items() if not hasattr(layer, "target")]
    return {
        "base_model_name_or_path": base_model,
        "bias": "none",
        "fan_in_fan_out": any(is_transposed(layer.frozen) for layer in lora.layers.values()),
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": lora.saved_alpha,
        "lora_dropout": lora.dropout,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": lora.saved_rank,
        "target_modules": target_modules(lora.model, linear) or None,
        "task_type": "CAUSAL_LM",
        "use_dora": lora.dora,
        "use_rslora": lora.rslora,
        **({"target_parameters": experts} if experts else {}),
    }


#: A gradient for each matrix of the adapter, None where nothing depends on it.
Gradients: TypeAlias = Sequence[Tensor | None]


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

    def gradients(self) -> list[Tensor]:
        """Return the gradients of all masters, to be added up over processes."""
        return [tensor.grad for tensor in self.tensors.values() if tensor.grad is not None]

    def gradients_of(self, loss: Tensor) -> Gradients:
        """Return the gradient of a pack's loss by the adapter, in the adapter's type. Nothing is
        written anywhere, so that several packs may ask at the same time."""
        return torch.autograd.grad(loss, list(self._adapter.values()), allow_unused=True)

    def add(self, gradients: Gradients) -> None:
        """Add a pack's gradient to the masters'."""
        pairs = zip(self.tensors.values(), gradients, strict=True)
        found = [(own.grad, new) for own, new in pairs if own.grad is not None and new is not None]
        if found:
            torch._foreach_add_([own for own, _ in found], [new for _, new in found])

    def clear(self) -> None:
        """Zero all gradients, also those of an interrupted step."""
        torch._foreach_zero_(_gradients(self.tensors.values()))

    def publish(self) -> None:
        """Copy the masters into the adapter, rounding to its type."""
        with torch.no_grad():
            torch._foreach_copy_(list(self._adapter.values()), list(self.tensors.values()))

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over saved masters and publish them."""
        for name, tensor in self.tensors.items():
            tensor.copy_(tensors[name])
        self.publish()


def _gradients(tensors: Iterable[Tensor]) -> list[Tensor]:
    return [tensor.grad for tensor in tensors if tensor.grad is not None]
