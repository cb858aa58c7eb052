"""How many tokens a step computes at a time, and less of them when memory runs out."""

import gc
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from trainer.artifacts.adapter_directory import fsync
from trainer.backends.base import Backend, is_missing_kernel
from trainer.distributed.process_group import ProcessGroup

_FILE = "packs.json"


@dataclass
class Budget:
    """Tokens of a pack, and tokens whose activations may wait until z₀ is known. Running out of
    memory lowers them for the rest of the run."""

    pack: int
    held: int

    def can_lower(self, longest: int) -> bool:
        """Return whether there is anything to lower; false when packs are single rows already."""
        return self.held > 0 or self.pack > longest

    def lower(self, longest: int) -> bool:
        """Lower the budget; return False when packs are single rows already."""
        if not self.can_lower(longest):
            return False
        if self.held:
            self.held = 0
        else:
            self.pack //= 2
        return True

    def store(self, directory: Path) -> None:
        """Write the budget, so that the run does not run out of memory again after a restart."""
        partial = directory / f".{_FILE}.partial"
        partial.write_text(json.dumps(asdict(self)), encoding="utf-8")
        fsync(partial)
        partial.rename(directory / _FILE)

    def restored(self, directory: Path, process_group: ProcessGroup) -> "Budget":
        """Return the stored budget where there is one and it is lower, the same in all processes
        of the run."""
        path = directory / _FILE
        found = [self]
        if path.exists():
            found.append(Budget(**json.loads(path.read_bytes())))
        everyone = [budget for part in process_group.gather(found) for budget in part]
        return Budget(
            pack=min(budget.pack for budget in everyone),
            held=min(budget.held for budget in everyone),
        )


class OutOfMemory(RuntimeError):
    """Memory ran out in this process or in another one of the run."""


class KernelMissing(RuntimeError):
    """A process of the run has no kernel for an attention; it does without it from now on."""


class Failures:
    """Why a step must be repeated. Where several processes compute it, one that fails must still
    take part in the step's collectives, and all of them repeat it."""

    def __init__(self, process_group: ProcessGroup, backend: Backend) -> None:
        self._backend = backend
        # With a sharded base the others wait inside of a layer: nobody can go on.
        self._goes_on = process_group.size > 1 and not process_group.sharded
        self.out_of_memory = False
        self.kernel_missing = False

    def __bool__(self) -> bool:
        return self.out_of_memory or self.kernel_missing

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Inside, record a failure instead of raising, where other processes wait. Raises
        KernelMissing when the backend does without a missing kernel from now on."""
        try:
            yield
        except RuntimeError as error:
            self.out_of_memory = is_out_of_memory(error)
            self.kernel_missing = is_missing_kernel(error) and self._backend.give_up_kernels(error)
            if not (self and self._goes_on):
                if self.kernel_missing:
                    raise KernelMissing(str(error)) from error
                raise

    def flags(self) -> list[float]:
        """Return what to sum over the processes."""
        return [float(self.out_of_memory), float(self.kernel_missing)]


def raise_failures(flags: Sequence[float]) -> None:
    """Raise OutOfMemory or KernelMissing where a process has flagged it (`Failures.flags`)."""
    out_of_memory, kernel_missing = flags
    if out_of_memory:
        raise OutOfMemory("out of memory in one of several processes")
    if kernel_missing:
        raise KernelMissing("another process of this run lacks it")


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether the device or the machine was out of memory."""
    return (
        isinstance(error, torch.OutOfMemoryError | OutOfMemory)
        or "can't allocate" in str(error)
        # what cuBLAS says when its workspace does not fit
        or "CUBLAS_STATUS_ALLOC_FAILED" in str(error)
    )


def release_memory() -> None:
    """Give unused memory back to the device. Call it outside of `except`: the traceback of an error
    holds the frames of the failed step, and they hold its activations."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
