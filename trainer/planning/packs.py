"""Packs and activation checkpointing that fit the free memory of a GPU.

Holding a step's activations until z₀ is known saves a second pass over its prompts; checkpointing
costs a third pass; packs of 1,024 tokens keep a GPU as busy as larger ones. So packs are made
smaller first, then nothing is held, and layers are checkpointed last. Models of more than a
billion parameters are checkpointed from the start: their activations are several times what an
adapter needs, free memory changes while a run lasts (an engine on the same GPU, longer examples
later in an epoch), and what is saved makes room for larger packs.
"""

from collections.abc import Iterator
from dataclasses import replace

import torch
from transformers import AutoConfig

from trainer.config import Packs, TrainConfig
from trainer.errors import TrainerError
from trainer.losses import loss_named
from trainer.models.architecture import Architecture
from trainer.models.loading import resolve_device
from trainer.planning.memory import Load, Setup, estimate
from trainer.precision import resolve_precision

#: Share of the free memory that a plan may fill: the estimate is not exact.
_USABLE = 0.9
#: Parameters above which a GPU's runs checkpoint their layers where the configuration says nothing.
LARGE = 1_000_000_000
#: (tokens of a pack, tokens that are held), the best first.
_SIZES = ((4096, 8192), (4096, 4096), (2048, 4096), (2048, 2048), (2048, 0), (1024, 0))


def free_memory(device: torch.device) -> int | None:
    """Return the free bytes of a GPU; None for a CPU, whose memory other processes share."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None


def checkpointing_choices(config: TrainConfig, architecture: Architecture) -> tuple[bool, ...]:
    """Return whether layers may be checkpointed on a GPU, the preferred choice first."""
    if config.experts or config.gradient_checkpointing is not None:
        return (config.packs.gradient_checkpointing,)
    return (True,) if architecture.parameters > LARGE else (False, True)


def packs_of_run(config: TrainConfig, devices: int) -> tuple[Packs, str]:
    """Return `packs_here` with the memory that is free now, for a run on several devices."""
    return packs_here(config, free_memory(resolve_device(config.device)), devices=devices)


def packs_here(config: TrainConfig, free: int | None, *, devices: int = 1) -> tuple[Packs, str]:
    """Return what the configuration means on its device with `free` bytes, and why, for a log line.

    What the configuration gives is kept. Raises TrainerError when the base has no configuration.
    """
    automatic = (config.token_budget, config.held_tokens, config.gradient_checkpointing)
    if None not in automatic:
        return config.packs, "packs and checkpointing as configured"
    if free is None:
        return config.packs, "packs and checkpointing are the defaults"
    try:
        architecture = Architecture.of(AutoConfig.from_pretrained(config.base_model))
    except (OSError, ValueError) as error:
        raise TrainerError(f"the base model {config.base_model} does not load: {error}") from error
    device = resolve_device(config.device)
    setup = Setup(
        config.lora_r,
        resolve_precision(config.dtype, device).dtype,
        "cuda",
        quantisation=config.quantisation,
        devices=devices,
        sharded=config.fsdp and devices > 1,
        experts=config.experts,
    )
    return fitting(config, architecture, setup, free)


def fitting(
    config: TrainConfig, architecture: Architecture, setup: Setup, free: int
) -> tuple[Packs, str]:
    """Return the first of the candidates whose estimate fits in `free` bytes, else the last."""
    for packs in pack_choices(config, architecture):
        tokens = max(packs.token_budget, packs.held_tokens, config.max_length)
        if not _waits(config):
            tokens = max(packs.token_budget, config.max_length)
        held = replace(setup, checkpointing=packs.gradient_checkpointing)
        needed = estimate(architecture, Load(tokens, 0), held).total
        if needed <= _USABLE * free:
            return packs, _reason(packs, needed, free)
    return packs, (
        f"{_reason(packs, needed, free)}, which may not be enough: set quantisation to 4bit, lower "
        "max_length or use more devices"
    )


def pack_choices(config: TrainConfig, architecture: Architecture) -> Iterator[Packs]:
    """Yield packs, the fastest first, with what the configuration gives in the place of each."""
    for checkpointing in checkpointing_choices(config, architecture):
        for token_budget, held_tokens in _SIZES:
            yield Packs(
                token_budget if config.token_budget is None else config.token_budget,
                held_tokens if config.held_tokens is None else config.held_tokens,
                checkpointing,
            )


def _waits(config: TrainConfig) -> bool:
    """Return whether activations wait until z₀ is known."""
    return loss_named(config.loss).anchor == "z0" and config.lora_dropout == 0


def _reason(packs: Packs, needed: int, free: int) -> str:
    layers = "layers checkpointed" if packs.gradient_checkpointing else "no checkpointing"
    return (
        f"packs of {packs.token_budget} tokens, {packs.held_tokens} held, {layers}: "
        f"{needed / 2**30:.1f} GiB of {free / 2**30:.1f} GiB that are free"
    )
