"""Copies from the host to a device that do not make the host wait.

A copy from ordinary memory, which is what `torch.tensor(…, device="cuda")` makes, first waits for
all work that the device was given before. One from pinned memory is queued behind that work.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

#: Devices that have no pinned memory, or share the host's.
_UNPINNED = {"cpu", "meta", "mps"}


def on_device(
    values: Sequence[Any], device: torch.device, dtype: torch.dtype | None = None
) -> Tensor:
    """Return numbers, nested or not, as a tensor on the device."""
    return to_device(torch.tensor(values, dtype=dtype), device)


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor of the host on the device."""
    if device.type in _UNPINNED:
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
