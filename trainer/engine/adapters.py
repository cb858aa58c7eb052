"""Many LoRA adapters on one base model, any mixture of them in one batch.

Every linear layer of the base is wrapped once. A batch whose rows use several adapters runs one
pair of matrix products for all of them: the A matrices in use are stacked, and each row's result
is masked down to its own adapter before the stacked B matrices. Rows of the base are masked
wholly, and a batch of base rows alone costs nothing extra (Hu et al. 2021, Section 4.1; S-LoRA,
Sheng et al. 2023, for serving many from one base).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from trainer.artifact import CONFIG, WEIGHTS, Manifest, verify_adapter
from trainer.errors import BadArtifact
from trainer.layers import Linear, layer_dtype, layer_shape, linear_layers
from trainer.lora import PREFIX, adapted_layers
from trainer.model import LoadedBase

MAX_RANK = 256

#: (A, B) by the name of the linear layer, (rank, in) and (out, rank), B times alpha/rank.
Weights = Mapping[str, tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Choice:
    """Which adapters a forward uses. `only`: all rows the same one; else `mask` (B, 1, Σ rank)."""

    only: int | None = None
    mask: Tensor | None = None


class ServedLinear(nn.Module):
    """A frozen linear layer and what the loaded adapters add to it."""

    def __init__(self, frozen: Linear, stack: "AdapterStack") -> None:
        super().__init__()
        self.frozen = frozen
        self.shape = layer_shape(frozen)
        # in a list, so that torch does not take the owner for a child
        self._stack = [stack]
        self.pairs: dict[int, tuple[Tensor, Tensor]] = {}
        self.stacked: tuple[Tensor, Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, in) → (B, T, out), or the same with rows and tokens in one: (B·T, in) → …"""
        base: Tensor = self.frozen(x)
        choice = self._stack[0].choice
        if choice is None:
            return base
        pair = self.stacked if choice.only is None else self.pairs[choice.only]
        if pair is None:
            return base
        low = F.linear(x, pair[0])
        if choice.mask is not None:
            low = low.view(len(choice.mask), -1, low.shape[-1]) * choice.mask
        # flat, because addmm adds in the same pass that multiplies
        flat = torch.addmm(base.flatten(0, -2), low.flatten(0, -2), pair[1].t())
        return flat.view(base.shape)


class AdapterStack:
    """The adapters of one model by slot number; 0 is the base. One thread owns it."""

    def __init__(self, model: Any) -> None:
        self.layers: dict[str, ServedLinear] = {}
        self.choice: Choice | None = None
        self._ranks: dict[int, int] = {}
        self._stacked: tuple[int, ...] = ()  # slots in `ServedLinear.stacked`, in order
        self._last_slot = 0
        for name, linear in linear_layers(model).items():
            parent, _, leaf = name.rpartition(".")
            self.layers[name] = ServedLinear(linear, self)
            setattr(model.get_submodule(parent), leaf, self.layers[name])

    @property
    def shapes(self) -> dict[str, torch.Size]:
        """(out, in) of each layer: what an adapter's matrices must fit."""
        return {name: layer.shape for name, layer in self.layers.items()}

    def attach(self, weights: Weights) -> int:
        """Takes an adapter in; returns its slot, which is never used again for another."""
        self._last_slot += 1
        slot = self._last_slot
        ranks = {a.shape[0] for a, _ in weights.values()}
        self._ranks[slot] = max(ranks)
        for name, layer in self.layers.items():
            pair = weights.get(name)
            if pair is None:  # the adapter leaves this layer as it is
                (out_features, in_features), rank = layer.shape, self._ranks[slot]
                pair = (
                    torch.zeros(rank, in_features, **_like(layer.frozen)),
                    torch.zeros(out_features, rank, **_like(layer.frozen)),
                )
            layer.pairs[slot] = pair
        return slot

    def detach(self, slot: int) -> None:
        """Frees an adapter that no row uses."""
        del self._ranks[slot]
        for layer in self.layers.values():
            del layer.pairs[slot]
        if slot in self._stacked:
            self._stack(())

    def select(self, slots: Sequence[int], running: Sequence[int]) -> None:
        """Row i of the next forwards uses slots[i]. `running`: the slots of the whole batch, so
        that a prefill of some rows does not undo the stack the others need."""
        wanted = set(slots)
        if wanted <= {0}:
            self.choice = None
        elif len(wanted) == 1:
            self.choice = Choice(only=wanted.pop())
        else:
            if not (wanted - {0}) <= set(self._stacked):
                self._stack(tuple(sorted({*slots, *running} - {0})))
            self.choice = Choice(mask=self._mask(slots))

    def _mask(self, slots: Sequence[int]) -> Tensor:
        like = _like(next(iter(self.layers.values())).frozen)
        owner = torch.tensor([slot for slot in self._stacked for _ in range(self._ranks[slot])])
        mine = torch.tensor(slots)[:, None] == owner[None, :]
        return mine[:, None, :].to(**like)

    def _stack(self, slots: tuple[int, ...]) -> None:
        self._stacked = slots
        for layer in self.layers.values():
            pairs = [layer.pairs[slot] for slot in slots]
            layer.stacked = (
                (torch.cat([a for a, _ in pairs]), torch.cat([b for _, b in pairs], dim=1))
                if pairs
                else None
            )


def _like(layer: Linear) -> dict[str, Any]:
    """Where and in which type a layer's matrices are held."""
    return {"dtype": layer_dtype(layer), "device": layer.weight.device}


def inside(root: Path, path: str) -> Path:
    """The adapter directory that `path` (absolute or below `root`) means.

    Raises BadArtifact when it lies outside `root`, also by way of symlinks.
    """
    try:
        directory = (root / path).resolve()
    except (OSError, ValueError, RuntimeError) as error:
        raise BadArtifact(f"{path!r} is no usable path ({error})") from error
    if not directory.is_relative_to(root.resolve()) or directory == root.resolve():
        raise BadArtifact("it lies outside the artifact root", path=directory)
    return directory


def read_adapter(
    directory: Path, base: LoadedBase, shapes: Mapping[str, torch.Size], *, name: str
) -> tuple[Manifest, Weights]:
    """Verifies an adapter directory and reads it for a base whose linear layers have `shapes`.

    Raises BadArtifact with every fault: of the directory, or of how it fits this base and name.
    """
    manifest = verify_adapter(
        directory,
        base_fingerprint=base.fingerprint,
        max_rank=MAX_RANK,
        shapes=shapes,
        name=name,
    )
    scale = json.loads((directory / CONFIG).read_bytes())["lora_alpha"] / manifest.rank
    tensors = load_file(directory / WEIGHTS)
    weights = {
        layer: (
            tensors[f"{PREFIX}{layer}.lora_A.weight"].to(base.device, base.dtype),
            (tensors[f"{PREFIX}{layer}.lora_B.weight"].float() * scale).to(base.device, base.dtype),
        )
        for layer in adapted_layers(tensors)
    }
    return manifest, weights
