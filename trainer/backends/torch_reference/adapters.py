"""Many LoRA adapters on one base model, any mixture of them in one batch, through transformers.

Every linear layer of the base is wrapped once, in groups that read the same input (linears.py). A
batch whose rows use several adapters runs one pair of matrix products a group for all of them: the
A matrices in use are stacked, and each row's result is masked down to its own adapter before the
stacked B matrices. Rows of the base are masked wholly, and a batch of base rows alone costs nothing
extra (Hu et al. 2021, Section 4.1; S-LoRA, Sheng et al. 2023, for serving many from one base).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainer.backends.base import AdapterWeights
from trainer.backends.torch_reference.decoder import TransformersDecoder
from trainer.backends.torch_reference.linears import Product, pack_head, sharing
from trainer.models.layers import Linear, layer_dtype, layer_shape, linear_layers
from trainer.transfers import to_device


@dataclass(frozen=True)
class Choice:
    """Which adapters a forward uses. `only`: all rows the same one; else `masks`, by the number of
    layers in a group, (B, 1, that number · Σ rank)."""

    only: int | None = None
    masks: Mapping[int, Tensor] | None = None


class Group:
    """Linear layers that read the same input, and what the loaded adapters add to them.

    An adapter's pair is (A of all layers stacked, B of all layers on a diagonal, transposed), so
    that two products serve the whole group.
    """

    def __init__(self, names: Sequence[str], layers: Sequence[Linear], stack: "AdapterStack"):
        self.names = names
        self.shapes = [layer_shape(layer) for layer in layers]
        self.like: dict[str, Any] = {
            "dtype": layer_dtype(layers[0]),
            "device": layers[0].weight.device,
        }
        self.pairs: dict[int, tuple[Tensor, Tensor]] = {}
        self.stacked: tuple[Tensor, Tensor] | None = None
        self._stack = stack
        self._base = Product(layers)
        self._widths = [out for out, _ in self.shapes]
        self._input: Tensor | None = None
        self._outputs: Sequence[Tensor] = ()

    def part(self, index: int, x: Tensor) -> Tensor:
        """Layer `index` of x: the first one called with it computes all of them."""
        if self._input is not x:
            whole = self.whole(x)
            if len(self.names) == 1:
                return whole
            self._outputs, self._input = whole.split(self._widths, dim=-1), x
        part = self._outputs[index]
        if index == len(self.names) - 1:
            self._outputs, self._input = (), None
        return part

    def whole(self, x: Tensor) -> Tensor:
        """(…, in) → (…, out of all layers), with what the rows' adapters add."""
        base = self._base(x)
        choice = self._stack.choice
        if choice is None:
            return base
        pair = self.stacked if choice.only is None else self.pairs[choice.only]
        if pair is None:
            return base
        low = F.linear(x, pair[0])
        if choice.masks is not None:
            mask = choice.masks[len(self.names)]
            low = low.view(len(mask), -1, low.shape[-1]) * mask
        # flat, because addmm adds in the same pass that multiplies
        flat = torch.addmm(base.flatten(0, -2), low.flatten(0, -2), pair[1])
        return flat.view(base.shape)

    def attach(self, slot: int, weights: AdapterWeights, rank: int) -> None:
        """Load an adapter's matrices; layers without an adapter get zeros."""
        a = torch.zeros(len(self.names) * rank, self.shapes[0][1], **self.like)
        b = torch.zeros(len(self.names) * rank, sum(self._widths), **self.like)
        column = 0
        for index, (name, width) in enumerate(zip(self.names, self._widths, strict=True)):
            if name in weights:
                rows = slice(index * rank, (index + 1) * rank)
                a[rows], b[rows, column : column + width] = weights[name][0], weights[name][1].t()
            column += width
        self.pairs[slot] = a, b

    def stack(self, slots: Sequence[int]) -> None:
        """Concatenate the matrices of several adapters, in this order."""
        pairs = [self.pairs[slot] for slot in slots]
        self.stacked = (
            (torch.cat([a for a, _ in pairs]), torch.cat([b for _, b in pairs])) if pairs else None
        )


class ServedLinear(nn.Module):
    """Replaces one layer of a group in the model."""

    def __init__(self, frozen: Linear, group: Group, index: int) -> None:
        super().__init__()
        self.frozen = frozen
        self.shape = group.shapes[index]
        self._group, self._index = group, index

    @property
    def pairs(self) -> Mapping[int, tuple[Tensor, Tensor]]:
        """Return the pairs of the layer's group, by slot."""
        return self._group.pairs

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, in) → (B, T, out), or the same with rows and tokens in one: (B·T, in) → …"""
        return self._group.part(self._index, x)


class AdapterStack(TransformersDecoder):
    """The adapters of a model that transformers runs, by slot number; 0 is the base. One thread
    owns it."""

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.layers: dict[str, ServedLinear] = {}
        self.choice: Choice | None = None
        self._groups: list[Group] = []
        self._ranks: dict[int, int] = {}
        self._stacked: tuple[int, ...] = ()  # slots in `Group.stacked`, in order
        self._masked: tuple[int, ...] = ()  # the rows' slots that `choice` has masks for
        self._last_slot = 0
        linears = linear_layers(model)
        for names in sharing(linears):
            group = Group(names, [linears[name] for name in names], self)
            self._groups.append(group)
            for index, name in enumerate(names):
                parent, _, leaf = name.rpartition(".")
                self.layers[name] = ServedLinear(linears[name], group, index)
                setattr(model.get_submodule(parent), leaf, self.layers[name])
        pack_head(model)

    @property
    def shapes(self) -> dict[str, torch.Size]:
        """Return (out, in) of each layer: what an adapter's matrices must fit."""
        return {name: layer.shape for name, layer in self.layers.items()}

    @property
    def slots(self) -> list[int]:
        """Return the slots of the loaded adapters."""
        return list(self._ranks)

    def attach(self, weights: AdapterWeights) -> int:
        """Load an adapter; return its slot, which is never used again for another."""
        self._last_slot += 1
        slot = self._last_slot
        self._ranks[slot] = max(a.shape[0] for a, _ in weights.values())
        for group in self._groups:
            group.attach(slot, weights, self._ranks[slot])
        return slot

    def detach(self, slot: int) -> None:
        """Free an adapter that no row uses."""
        del self._ranks[slot]
        for group in self._groups:
            del group.pairs[slot]
        if slot in self._stacked:
            self._stack(())

    def select(self, slots: Sequence[int], running: Sequence[int]) -> None:
        """Row i of the next forwards uses slots[i]. `running`: the slots of the whole batch, so
        that a prefill of some rows does not undo the stack the others need."""
        wanted = set(slots)
        if self._masked == tuple(slots):
            return  # the same rows as in the last step, the usual case
        self._masked = ()
        if wanted <= {0}:
            self.choice = None
        elif len(wanted) == 1:
            self.choice = Choice(only=wanted.pop())
        else:
            if not (wanted - {0}) <= set(self._stacked):
                self._stack(tuple(sorted({*slots, *running} - {0})))
            self.choice = Choice(masks=self._masks(slots))
            self._masked = tuple(slots)

    def _masks(self, slots: Sequence[int]) -> dict[int, Tensor]:
        masks = {}
        rows = torch.tensor(slots)[:, None]
        for count in {len(group.names) for group in self._groups}:
            owner = [slot for slot in self._stacked for _ in range(count * self._ranks[slot])]
            mine = rows == torch.tensor(owner)[None, :]
            like = self._groups[0].like
            masks[count] = to_device(mine[:, None, :].to(like["dtype"]), like["device"])
        return masks

    def _stack(self, slots: tuple[int, ...]) -> None:
        self._stacked, self._masked = slots, ()
        for group in self._groups:
            group.stack(slots)
