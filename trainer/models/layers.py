"""The linear layers of a causal LM that an adapter may sit on, whatever they are called.

| architecture | adapted |
|---|---|
| Llama, Mistral, Qwen 2 and 3, Gemma 2 and 3 | q, k, v, o, gate, up, down |
| Phi-3 | the fused qkv and gate_up, o, down |
| GPT-2 | its Conv1D layers: linear layers with a transposed weight |
| Mixtral and other mixtures of experts | attention (and shared experts), not routed experts |

Routed experts are left as they are unless a run asks for them (`experts`, peft_experts.py).
transformers 5 holds them as three-dimensional parameters, no layers; PEFT can adapt those
(`target_parameters`) only by building a whole W + B A for every expert at every forward pass, and
no batch of several adapters could be served that way. The router is
left as well: where it is a parameter PEFT cannot load an adapter for it, and where it is a layer
it decides about tokens of all rows at once.
"""

from collections.abc import Iterable
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

#: What is adapted: torch's linear layer (4-bit ones are subclasses of it) and GPT-2's own.
Linear: TypeAlias = nn.Linear | Conv1D

#: Parts of a module's name below which nothing is adapted: routers, and what they route to.
_ROUTED = {"experts", "gate", "router", "shared_expert_gate"}

#: Parts of the names of attention modules.
_ATTENTION = {"self_attn", "attn", "attention"}
#: What a run may adapt (TrainConfig.target_modules).
TARGETS = ("all", "attention", "mlp")


def linear_layers(model: Any) -> dict[str, Linear]:
    """Return every layer that an adapter sits on, by name, in the model's order.

    Only below the decoder: the head keeps its weights, and the towers of a model that also sees
    pictures are never run here.
    """
    head = model.get_output_embeddings()
    decoder = {id(module) for module in model.get_decoder().modules()}
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, Linear)
        and module is not head
        and id(module) in decoder
        and _ROUTED.isdisjoint(name.split("."))
    }


def layers_of(model: Any, targets: str) -> list[str]:
    """Return the names of the layers that `target_modules` of a run means: those of the attention,
    those of the MLPs, or all."""
    names = list(linear_layers(model))
    if targets == "all":
        return names
    wanted = targets == "attention"
    return [name for name in names if wanted != _ATTENTION.isdisjoint(name.split("."))]


def is_transposed(layer: Linear) -> bool:
    """Return whether the weight is stored as (in, out): PEFT calls that fan_in_fan_out."""
    return isinstance(layer, Conv1D)


def layer_shape(layer: Linear) -> torch.Size:
    """Return (out, in), also where the weight is stored transposed or packed."""
    if isinstance(layer, Conv1D):
        return torch.Size((layer.nf, layer.nx))
    return torch.Size((layer.out_features, layer.in_features))


def layer_shapes(model: Any) -> dict[str, torch.Size]:
    """Return (out, in) of every layer that an adapter may sit on: what its matrices must fit."""
    return {name: layer_shape(layer) for name, layer in linear_layers(model).items()}


def dense_weight(layer: Linear) -> Tensor | None:
    """Return the weight as (out, in); None where it has a form of its own and the layer must be
    called."""
    if type(layer) is nn.Linear:
        return layer.weight
    return layer.weight.t() if type(layer) is Conv1D else None


def layer_dtype(layer: Linear) -> torch.dtype:
    """Return the type a layer computes in: its weight's, or what a packed weight is unpacked to."""
    maybe_packed: Any = layer
    kind: torch.dtype = maybe_packed.weight.dtype
    return kind if kind.is_floating_point else maybe_packed.compute_dtype


def target_modules(model: Any, names: Iterable[str]) -> list[str]:
    """PEFT's `target_modules` for the layers named: their last parts (`q_proj`), which every
    reader of adapters understands, or whole names where the last parts would match other layers
    too."""
    chosen = set(names)
    leaves = {name.rpartition(".")[2] for name in chosen}
    matched = {
        name
        for name, module in model.named_modules()
        if isinstance(module, Linear) and name.rpartition(".")[2] in leaves
    }
    return sorted(leaves if matched <= chosen else chosen)
