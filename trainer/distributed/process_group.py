"""The processes that train one run together, `accelerate launch` or `torchrun` having started them.

A step is divided by packs of rows; what is added up over processes is z₀'s sum, the rewards and
the adapter's gradient, once a step. Every process then takes the same optimiser step, so that the
adapters stay equal without ever being sent. Only the first process writes.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
import torch.distributed as dist
from torch import Tensor


def rank() -> int:
    """This process's number, as the launcher says; 0 without one."""
    return int(os.environ.get("RANK", "0"))


def size() -> int:
    """How many processes train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@dataclass(frozen=True)
class Turn:
    """A piece of work to do, by its index. One that does not `count` is another process's: it is
    run for company, and what comes out of it is thrown away."""

    piece: int
    counts: bool = True


@dataclass(frozen=True)
class World:
    """This process among `size`; alone by default. `sharded` says that the base is spread over
    the processes, which must then run it equally often (trainer/distributed/fsdp.py)."""

    rank: int = 0
    size: int = 1
    sharded: bool = False

    @classmethod
    def join(cls, *, sharded: bool = False) -> Self:
        """Take part in what the launcher's environment describes; alone without one, and then
        nothing is sharded. On CUDA each process of a host takes the device of its number."""
        if size() == 1:
            return cls()
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        if not dist.is_initialized():
            dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
        return cls(rank(), size(), sharded)

    @property
    def first(self) -> bool:
        """Whether this process writes."""
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def sum_each(self, tensors: Sequence[Tensor]) -> None:
        """`sum` of many tensors in one message."""
        if self.size == 1:
            return
        flat = self.sum(torch.cat([tensor.flatten() for tensor in tensors]))
        start = 0
        for tensor in tensors:
            tensor.copy_(flat[start : start + tensor.numel()].view_as(tensor))
            start += tensor.numel()

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether it is true of any process."""
        if self.size == 1:
            return flag
        return bool(self.sum(torch.tensor(float(flag), device=device)).item())

    def gather(self, value: Any) -> list[Any]:
        """Everybody's value, in the order of ranks."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value)
        return found

    def share(self, sizes: Sequence[int]) -> list[Turn]:
        """Which of several pieces of work of these sizes are this process's: largest first, each
        to whoever has least. Where the base is sharded they are dealt out in rounds, in which
        everybody has a piece of about the same size, or somebody's piece of the last round."""
        if self.size == 1:
            return [Turn(piece) for piece in range(len(sizes))]
        order = sorted(range(len(sizes)), key=lambda piece: (-sizes[piece], piece))
        if self.sharded:
            mine = [Turn(piece) for piece in order[self.rank :: self.size]]
            idle = len(order) % self.size != 0 and self.rank >= len(order) % self.size
            return [*mine, Turn(order[-1], counts=False)] if idle else mine
        loads = [0] * self.size
        mine = []
        for piece in order:
            owner = loads.index(min(loads))
            loads[owner] += sizes[piece]
            if owner == self.rank:
                mine.append(Turn(piece))
        return mine

    def leave(self) -> None:
        """Part from the others."""
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()
