"""Peak memory of the device."""

import torch


def reset(device: torch.device) -> None:
    """Count the peak from now on."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak(device: torch.device) -> int | None:
    """Return the most bytes allocated since `reset`; None on a CPU."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
