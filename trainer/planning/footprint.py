"""`python -m trainer plan --footprint`: what the memory of a run depends on, as numbers from which
it is computed for any settings without torch, as the web app does.

Estimates are those of trainer/planning/memory.py: linear in the rank, in tokens and in pairs of
positions, but for one product.
"""

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from trainer.config import Packs, TrainConfig, read_json
from trainer.data.examples import read_examples
from trainer.errors import Refused
from trainer.losses import LOSSES
from trainer.models.architecture import Architecture
from trainer.models.loading import resolve_device
from trainer.models.quantisation import FOUR_BIT
from trainer.planning.memory import Load, Setup, estimate
from trainer.planning.packs import free_memory, pack_choices
from trainer.planning.plan import architecture_of, tokenised_of
from trainer.precision import resolve_precision

#: The largest `max_length`: what that of a run would cut is counted.
UNCUT = 1_000_000
PRECISIONS = ("auto", "float32", "bfloat16", "float16")
#: Distances over which slopes are measured: large, as estimates are whole bytes.
RANK, TOKENS, PAIRS = 2**12, 2**20, 2**30
#: The memory that a container may use, or "max".
CGROUP = Path("/sys/fs/cgroup/memory.max")


@dataclass(frozen=True)
class Way:
    """One way to hold a run: with rank r, t tokens whose activations wait for their gradient and p
    pairs of positions that attend to each other it takes

        fixed + rank · r + (token + token_rank · r) · t + pair · p

    bytes of each device.
    """

    dtype: str
    quantisation: str | None
    gradient_checkpointing: bool
    fixed: float
    rank: float
    token: float
    token_rank: float
    pair: float


def footprint(
    model: str, examples: Path, config: Path | None = None, *, devices: int = 1
) -> dict[str, Any]:
    """Return what decides about memory on `devices` devices of this machine.

    `total` and `free` are bytes of one device (`free` None on a CPU, whose memory other processes
    share), `lengths` those of the examples in tokens, the longest first, `waits` the losses that
    hold activations until z₀ is known, `packs` what a run chooses from, the preferred first.
    Raises Refused with the faults of both files, and TrainerError.
    """
    given = {} if config is None else read_json(config)
    if not isinstance(given, dict):
        raise Refused(f"{config} must hold a JSON object")
    settings = TrainConfig.from_dict({"adapter_name": "plan@1", **given, "base_model": model})
    architecture = architecture_of(model)
    device = resolve_device(settings.device)
    setup = Setup(0, device=device.type, devices=devices, sharded=settings.fsdp and devices > 1)
    found = tokenised_of(replace(settings, max_length=UNCUT), read_examples(examples))
    packs = pack_choices(settings, architecture) if device.type == "cuda" else [Packs()]
    return {
        "device": device.type,
        "devices": devices,
        "total": total_memory(device),
        "free": free_memory(device),
        "lengths": sorted((example.length for example in found), reverse=True),
        "waits": [name for name, loss in LOSSES.items() if loss.anchor == "z0"],
        "packs": [asdict(each) for each in packs],
        "ways": [asdict(way) for way in ways(architecture, setup)],
    }


def ways(architecture: Architecture, setup: Setup) -> Iterator[Way]:
    """Yield the ways to hold a run on the devices of `setup`."""
    for dtype in PRECISIONS:
        precision = resolve_precision(dtype, torch.device(setup.device))
        for quantisation in (None, FOUR_BIT):
            for checkpointing in (False, True):
                held = replace(
                    setup,
                    dtype=precision.dtype,
                    quantisation=quantisation,
                    checkpointing=checkpointing,
                )
                yield Way(dtype, quantisation, checkpointing, **_slopes(architecture, held))


def total_memory(device: torch.device) -> int | None:
    """Return the bytes of a GPU, or of this host as far as its container may use them; None where
    that is unknown."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[1]
    try:
        host = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None
    try:
        allowed = CGROUP.read_text(encoding="ascii").strip()
    except OSError:
        return host
    return min(host, int(allowed)) if allowed.isdecimal() else host


def _slopes(architecture: Architecture, setup: Setup) -> dict[str, float]:
    def total(rank: int, tokens: int, pairs: int = 0) -> int:
        return estimate(architecture, Load(tokens, pairs), replace(setup, rank=rank)).total

    fixed, ranked, loaded = total(0, 0), total(RANK, 0), total(0, TOKENS)
    return {
        "fixed": fixed,
        "rank": (ranked - fixed) / RANK,
        "token": (loaded - fixed) / TOKENS,
        "token_rank": (total(RANK, TOKENS) - ranked - loaded + fixed) / (RANK * TOKENS),
        "pair": (total(0, 0, PAIRS) - fixed) / PAIRS,
    }
