"""How many positions of keys and values fit the memory of a device.

A position of SmolLM2-135M is 23 KB in bfloat16, one of a 7B model without grouped heads 512 KB, so
a number of positions that suits one is 20 times too many for the other.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

#: Positions on a host at most, where other processes want memory too: those of the batch (1.5 GB
#: for SmolLM2-135M in bfloat16) and those of earlier answers (390 MB).
HOST_BATCH, HOST_PREFIXES = 65_536, 16_384
#: Shares of the free memory. The rest is for activations, scores, adapters, and the copies of a
#: prompt's keys and values that exist while it joins and while the batch grows.
_BATCH_SHARE, _PREFIX_SHARE = 0.5, 0.125


@dataclass(frozen=True)
class CacheLimits:
    """Positions of keys and values: of the rows that run, padding included, and of finished
    answers."""

    batch: int
    prefixes: int


def cache_limits(model: Any) -> CacheLimits:
    """Return the limits of a model whose weights are on their device already."""
    free = free_memory(model.device)
    found = limits_within(free, position_bytes(model.config.get_text_config(), model.dtype))
    if model.device.type != "cpu":
        return found
    return CacheLimits(min(found.batch, HOST_BATCH), min(found.prefixes, HOST_PREFIXES))


def limits_within(free: int | None, size: int) -> CacheLimits:
    """Return the limits for positions of `size` bytes within `free` bytes; a host's where the free
    memory is unknown."""
    if free is None:
        return CacheLimits(HOST_BATCH, HOST_PREFIXES)
    return CacheLimits(max(1, int(free * _BATCH_SHARE) // size), int(free * _PREFIX_SHARE) // size)


def position_bytes(config: Any, dtype: torch.dtype) -> int:
    """Return the bytes of one position's keys and values in all layers."""
    heads = config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    groups = getattr(config, "num_key_value_heads", None) or heads
    return int(2 * config.num_hidden_layers * groups * size * dtype.itemsize)


def free_memory(device: torch.device) -> int | None:
    """Return the bytes that can be allocated on a device; None where that is unknown."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        # what torch holds and does not use
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if device.type != "cpu":
        return None
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    known = dict(line.split(":", 1) for line in lines)
    return int(known["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in known else None
