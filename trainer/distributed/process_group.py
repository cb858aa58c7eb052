"""The processes that train one run together, started by `accelerate launch` or `torchrun`.

A step is divided by packs of rows; z₀'s sum, the rewards and the adapter's gradient are summed over
processes, once a step. Every process then takes the same optimiser step, so that the adapters stay
equal without being sent. Only the first process writes.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
import torch.distributed as dist
from torch import Tensor


def rank() -> int:
    """Return this process's number from the launcher's environment; 0 without a launcher."""
    return int(os.environ.get("RANK", "0"))


def size() -> int:
    """Return how many processes train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@dataclass(frozen=True)
class WorkItem:
    """A piece of work, by its index. `counts` is false for a dummy pass: another process computes
    the piece, this one runs it so that FSDP collectives match, and the result is discarded."""

    piece: int
    counts: bool = True


@dataclass(frozen=True)
class ProcessGroup:
    """This process among `size`; a single one by default. `sharded`: the base is sharded over the
    processes, which must then run it equally often (trainer/distributed/fsdp.py)."""

    rank: int = 0
    size: int = 1
    sharded: bool = False

    @classmethod
    def join(cls, *, sharded: bool = False) -> Self:
        """Join the group that the launcher's environment describes; without a launcher return a
        group of one, not sharded. On CUDA each process of a host uses the device of its number."""
        if size() == 1:
            return cls()
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        if not dist.is_initialized():
            dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
        return cls(rank(), size(), sharded)

    @property
    def first(self) -> bool:
        """Return whether this process writes files."""
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """Sum a tensor over all processes, in place; return it."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def sum_each(self, tensors: Sequence[Tensor]) -> None:
        """Sum many tensors over all processes, in place, with one collective."""
        if self.size == 1:
            return
        flat = self.sum(torch.cat([tensor.flatten() for tensor in tensors]))
        start = 0
        for tensor in tensors:
            tensor.copy_(flat[start : start + tensor.numel()].view_as(tensor))
            start += tensor.numel()

    def any(self, flag: bool, device: torch.device) -> bool:
        """Return whether the flag is true on any process."""
        if self.size == 1:
            return flag
        return bool(self.sum(torch.tensor(float(flag), device=device)).item())

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all processes, in the order of ranks.

        The values are pickled: tensors in them must be on the CPU, since a process that unpickles
        one of another device opens a context there.
        """
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value)
        return found

    def share(self, sizes: Sequence[int]) -> list[WorkItem]:
        """Return this process's share of pieces of work of these sizes.

        Pieces are assigned largest first, each to the process with the least work. Where the base
        is sharded they are assigned in rounds of pieces of about the same size; a process without
        a piece in the last round gets a dummy pass.
        """
        if self.size == 1:
            return [WorkItem(piece) for piece in range(len(sizes))]
        order = sorted(range(len(sizes)), key=lambda piece: (-sizes[piece], piece))
        if self.sharded:
            mine = [WorkItem(piece) for piece in order[self.rank :: self.size]]
            idle = len(order) % self.size != 0 and self.rank >= len(order) % self.size
            return [*mine, WorkItem(order[-1], counts=False)] if idle else mine
        loads = [0] * self.size
        mine = []
        for piece in order:
            owner = loads.index(min(loads))
            loads[owner] += sizes[piece]
            if owner == self.rank:
                mine.append(WorkItem(piece))
        return mine

    def leave(self) -> None:
        """Leave the group."""
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()
