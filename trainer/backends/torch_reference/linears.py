"""How the base's linear layers run where transformers runs the model: together where they read the
same, packed on CPUs.

A decoding step is hundreds of small products. Layers that read the same input (q, k, v; gate, up)
are one product here, and so are their adapters'. On a CPU the weights lie in the order in which
oneDNN reads them: torch would bring them into it again at every call, which costs more than the
product itself while few rows are running. In bfloat16 the results are bit for bit the same.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainer.models.layers import Linear

#: Neighbours that architectures call with one input, by the last part of their names.
SHARING = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
#: Rows that the packed order is made for; any other number works too.
PACKED_ROWS = 8


class Product:
    """x → x Wᵀ + b for the stacked W and b of layers that read the same x."""

    def __init__(self, layers: Sequence[Linear]) -> None:
        self._whole: Linear | None = None
        self._packed: Tensor | None = None
        if any(type(layer) is not nn.Linear for layer in layers):
            (self._whole,) = layers  # a packed or transposed weight knows itself how to multiply
            return
        self._bias = None if layers[0].bias is None else torch.cat([one.bias for one in layers])
        self._weight = torch.cat([one.weight.detach() for one in layers])
        if packable(self._weight):
            with torch.no_grad():
                self._packed = torch.ops.mkldnn._reorder_linear_weight(self._weight, PACKED_ROWS)
            self._weight = self._weight.to("meta")
        # the layers' weights are views of this one (on "meta" if it was packed), so that one copy
        # of the base is held
        parts = self._weight.split([layer.out_features for layer in layers])
        for layer, part in zip(layers, parts, strict=True):
            layer.weight = nn.Parameter(part, requires_grad=False)

    def __call__(self, x: Tensor) -> Tensor:
        """(…, in) → (…, out of all layers)."""
        if self._whole is not None:
            return self._whole(x)
        if self._packed is not None:
            linear = torch.ops.mkldnn._linear_pointwise
            return linear(x, self._packed, self._bias, "none", [], "")
        return F.linear(x, self._weight, self._bias)


def packable(weight: Tensor) -> bool:
    """Return whether this machine's oneDNN takes packed weights of this kind."""
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if weight.dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return weight.dtype == torch.float32


def sharing(layers: Mapping[str, Linear]) -> list[list[str]]:
    """Return the names of `layers` in groups that may run as one product, in the model's order."""
    groups: list[list[str]] = []
    for name, layer in layers.items():
        parent, _, leaf = name.rpartition(".")
        if groups and fits(layers, groups[-1], parent, leaf, layer):
            groups[-1].append(name)
        else:
            groups.append([name])
    return groups


def fits(
    layers: Mapping[str, Linear], group: Sequence[str], parent: str, leaf: str, layer: Linear
) -> bool:
    """Return whether `layer` continues a group: next in a row of SHARING, of the same kind and
    width."""
    first = layers[group[0]]
    before = [name.rpartition(".") for name in group]
    return (
        all(owner == parent for owner, _, _ in before)
        and any(
            (*(part for _, _, part in before), leaf) == row[: len(group) + 1] for row in SHARING
        )
        and type(layer) is type(first) is nn.Linear
        and layer.in_features == first.in_features
        and (layer.bias is None) == (first.bias is None)
    )


class PackedHead(nn.Module):
    """The output layer, packed. The embedding may be tied to it, so its weight stays."""

    def __init__(self, head: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = head.weight, head.bias
        with torch.no_grad():
            self._packed = torch.ops.mkldnn._reorder_linear_weight(
                head.weight.detach(), PACKED_ROWS
            )

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, self._packed, self.bias, "none", [], "")


def pack_head(model: Any) -> None:
    """Pack a model's output layer where that is possible."""
    head = model.get_output_embeddings()
    if type(head) is nn.Linear and packable(head.weight):
        model.set_output_embeddings(PackedHead(head))
