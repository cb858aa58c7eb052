"""Packs side by side on the cores of a CPU.

Two threads that share each matrix product wait for each other at its end, some two hundred times a
layer; two threads with a pack each never do. Python's lock costs nothing: torch and the compiled
kernels let go of it while they compute. What a pack computes depends on the pack alone, and results
come back in the order of the packs: whoever finishes first makes no difference.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from typing import TypeVar

import torch

#: Tokens that a pack should have: below, products are too small to be fast.
WORTH_A_PACK = 512

_T = TypeVar("_T")
_R = TypeVar("_R")


def workers(device: torch.device, token_budget: int) -> int:
    """How many packs run at a time so that all of them together stay within the budget: one on
    anything but a CPU, and there one a thread that torch would use."""
    if device.type != "cpu":
        return 1
    return max(1, min(torch.get_num_threads(), token_budget // WORTH_A_PACK))


def side_by_side(
    function: Callable[[_T], _R], items: Sequence[_T], *, at_a_time: int
) -> Iterator[_R]:
    """`function` of each item, in the order of the items; the threads of the CPU are divided among
    those that run at the same time. When one of them raises, or the caller stops asking, those
    that have begun are waited for and the others are not begun."""
    if at_a_time == 1 or len(items) < 2:
        yield from map(function, items)
        return
    threads = max(1, torch.get_num_threads() // min(at_a_time, len(items)))
    grad = torch.is_grad_enabled()

    def alone(item: _T) -> _R:
        torch.set_num_threads(threads)  # of this thread of Python
        with torch.set_grad_enabled(grad):
            return function(item)

    futures = [_pool(at_a_time).submit(alone, item) for item in items]
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
