"""The adapter of a run on its first values, and the one that it starts from: `start_adapter` of its
configuration.

The run's own adapter begins with the matrices of that one, and the reference is the policy with
them: rewards, z₀ and the KL brake measure the distance from the version that the run continues, as
merging it into the base would (bench/evidence/cells.py does that). Base and run adapter still make
one version: the result is an adapter of the same base, served like any other.
"""

import json
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from trainer.artifacts.adapter_directory import CONFIG, WEIGHTS, verify_adapter
from trainer.backends import backend_for
from trainer.config import MAX_RANK, TrainConfig
from trainer.errors import BadArtifact, TrainerError
from trainer.models.layers import layer_shapes, layers_of
from trainer.models.loading import LoadedBase
from trainer.models.lora import Lora, adapted_layers, scale_of
from trainer.models.peft_lora import PeftLora


@dataclass(frozen=True)
class StartAdapter:
    """A verified adapter to start from; `sha256` identifies its weights, `scale` multiplies B A."""

    name: str
    sha256: str
    scale: float
    tensors: Mapping[str, Tensor]

    @property
    def identity(self) -> str:
        """Return what names the policy that it makes of a base."""
        return f"{self.sha256}*{self.scale:g}"


def start_faults(run_dir: Path, config: TrainConfig) -> list[str]:
    """Return why a run cannot start from its `start_adapter`, without loading the base model."""
    directory = _directory(run_dir, config)
    if directory is None:
        return []
    try:
        verify_adapter(directory, base_fingerprint=None, max_rank=MAX_RANK)
    except BadArtifact as error:
        return [f"start_adapter {directory.name}: {fault}" for fault in error.faults]
    with safe_open(directory / WEIGHTS, framework="pt") as file:
        layers = adapted_layers(file.keys())
    return [
        *_setting_faults(directory.name, json.loads((directory / CONFIG).read_bytes()), config),
        *_layer_faults(directory.name, layers, config),
    ]


def read_start(run_dir: Path, config: TrainConfig, base: LoadedBase) -> StartAdapter | None:
    """Return the adapter that the run starts from, if it has one. Raises BadArtifact with every
    fault of the directory and of how it fits the base."""
    directory = _directory(run_dir, config)
    if directory is None:
        return None
    manifest = verify_adapter(
        directory,
        base_fingerprint=base.fingerprint,
        max_rank=MAX_RANK,
        shapes=layer_shapes(base.model),
    )
    settings = json.loads((directory / CONFIG).read_bytes())
    return StartAdapter(
        manifest.name, manifest.sha256, scale_of(settings), load_file(directory / WEIGHTS)
    )


def new_adapter(base: LoadedBase, config: TrainConfig, *, sharded: bool = False) -> Lora:
    """Return the run's adapter on its first values: in PEFT's layers where the backend has none of
    its own or only PEFT computes the variant. Raises Refused.

    PEFT's layers are not used on a base that is spread over processes.
    """
    given: dict[str, Any] = {
        "rank": config.lora_r,
        "alpha": config.lora_alpha,
        "dropout": config.lora_dropout,
        "rslora": config.use_rslora,
        "seed": config.seed,
        "only": layers_of(base.model, config.target_modules),
    }
    if not config.needs_peft and (sharded or not backend_for(base.device).peft_layers):
        return Lora.attach(base.model, **given)
    return PeftLora.attach(
        base.model, dora=config.use_dora, init=config.lora_init, experts=config.experts, **given
    )


def start_identity(config: TrainConfig, start: StartAdapter | None) -> str:
    """Return what names the reference besides the base; empty where it is the base. With PiSSA it
    is the base up to rounding."""
    if start is not None:
        return f"/{start.identity}"
    if config.lora_init != "pissa":
        return ""
    settings = (config.lora_r, config.lora_alpha, config.use_rslora, config.target_modules)
    return f"/pissa {settings} {config.seed}"


def _directory(run_dir: Path, config: TrainConfig) -> Path | None:
    """Return the directory, which is relative to the run's unless it is absolute. `..` is taken by
    name: the directory of all runs may be a link to another disk."""
    if config.start_adapter is None:
        return None
    return Path(os.path.normpath(run_dir.absolute() / config.start_adapter))


def _setting_faults(name: str, settings: Mapping[str, Any], config: TrainConfig) -> list[str]:
    given = {
        "lora_r": settings["r"],
        "lora_alpha": settings["lora_alpha"],
        "use_rslora": bool(settings.get("use_rslora")),
    }
    return [
        f"{key} is {getattr(config, key)}, but {name} has {value}: a run that starts from it "
        "needs the same"
        for key, value in given.items()
        if getattr(config, key) != value
    ]


def _layer_faults(name: str, layers: Collection[str], config: TrainConfig) -> list[str]:
    """Return how the adapter's layers differ from those that a new adapter would have."""
    base_model = config.base_model
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(base_model))
    except (OSError, ValueError) as error:
        raise TrainerError(f"The base model {base_model!r} cannot be loaded: {error}") from error
    wanted, found = set(layers_of(model, config.target_modules)), set(layers)
    if wanted == found:
        return []
    first = sorted(wanted ^ found)[0]
    return [
        f"start_adapter {name} has other layers than an adapter of this run: {first} is "
        + ("missing" if first in wanted else "too many")
    ]
