"""Run packs in parallel on the cores of a CPU.

Two threads that share each matrix product wait for each other at its end, some two hundred times a
layer; two threads with a pack each never do. torch and the compiled kernels release Python's lock
while they compute. A pack's result depends on the pack alone, and results are returned in the order
of the packs, so the order of execution does not matter.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from typing import TypeVar

import torch

#: Minimum tokens of a pack: smaller products are slow.
MIN_PACK_TOKENS = 512

_T = TypeVar("_T")
_R = TypeVar("_R")


def concurrent_packs(device: torch.device, token_budget: int) -> int:
    """Return how many packs run at a time within the token budget: at most one a thread of torch on
    a CPU, one on other devices."""
    if device.type != "cpu":
        return 1
    return max(1, min(torch.get_num_threads(), token_budget // MIN_PACK_TOKENS))


def parallel_map(
    function: Callable[[_T], _R], items: Sequence[_T], *, concurrency: int
) -> Iterator[_R]:
    """Yield `function(item)` in the order of the items, `concurrency` of them at a time.

    The CPU's threads are divided among the concurrent calls. When a call raises, or the caller
    stops iterating, running calls are waited for and the others are cancelled.
    """
    if concurrency == 1 or len(items) < 2:
        yield from map(function, items)
        return
    threads = max(1, torch.get_num_threads() // min(concurrency, len(items)))
    grad = torch.is_grad_enabled()

    def run(item: _T) -> _R:
        torch.set_num_threads(threads)  # of this thread of Python
        with torch.set_grad_enabled(grad):
            return function(item)

    futures = [_pool(concurrency).submit(run, item) for item in items]
    try:
        for future in futures:
            yield future.result()
    finally:
        for future in futures:
            future.cancel()
        wait(futures)


@cache
def _pool(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, thread_name_prefix="pack")
