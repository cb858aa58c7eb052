"""Runs that repeat bit for bit on a GPU.

On a CPU the same run directory ends with the same bytes, also after a kill. On CUDA it does not:
index_add and some backward passes add with atomics, in whatever order the threads arrive, and
cuBLAS may split a product differently. `deterministic` makes torch choose algorithms whose order is
fixed. The result then is the same on the same kind of GPU, with the same versions of torch and
CUDA, the same number of processes and the same packs; a run that ran out of memory or had other
packs differs in rounding.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

#: cuBLAS reads it when its handle is made: two workspaces of fixed size a stream.
_WORKSPACE = ("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


@contextmanager
def deterministic_algorithms(wanted: bool) -> Iterator[None]:
    """Use algorithms with a fixed order of sums inside the context, where `wanted`. Enter it before
    the first use of the device. Operations without such an algorithm raise RuntimeError."""
    if not wanted:
        yield
        return
    os.environ.setdefault(*_WORKSPACE)
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
